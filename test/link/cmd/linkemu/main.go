// Linkemu makes two network namespaces with a path between them, for trying
// things by hand, and takes them away when its standard input ends. It needs
// root.
//
//	linkemu [delay=25ms,rate=100M,loss=1%,…]
//
// It prints how to get inside, and reads commands, one a line:
//
//	set [ab|ba] PARAMETERS   of one direction, or both
//	cut [ab|ba]              loses everything
//	mend [ab|ba]
//	stats
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/poemq/poemq/test/link"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "linkemu:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	p, err := link.Parse(strings.Join(args, ","))
	if err != nil {
		return err
	}
	l, err := link.New("a", "b", p)
	if err != nil {
		return err
	}
	defer l.Close()
	for _, h := range []*link.Host{l.A, l.B} {
		f, err := h.Namespace()
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Printf("%s is %v: nsenter --net=/proc/%d/fd/%d\n", h.Name, h.Addr, os.Getpid(), f.Fd())
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := obey(l, strings.Fields(lines.Text())); err != nil {
			fmt.Fprintln(os.Stderr, "linkemu:", err)
		}
	}
	return nil
}

// obey does one command.
func obey(l *link.Link, words []string) error {
	if len(words) == 0 {
		return nil
	}
	verb, words := words[0], words[1:]
	d := link.Both
	if len(words) > 0 {
		if one, ok := map[string]link.Direction{"ab": link.AtoB, "ba": link.BtoA}[words[0]]; ok {
			d, words = one, words[1:]
		}
	}
	if verb != "set" && len(words) > 0 {
		return fmt.Errorf("%s: what is %q?", verb, words)
	}
	switch verb {
	case "set":
		p, err := link.Parse(strings.Join(words, ","))
		if err != nil {
			return err
		}
		return l.Set(d, p)
	case "cut":
		l.Cut(d)
	case "mend":
		l.Mend(d)
	case "stats":
		for _, one := range []link.Direction{link.AtoB, link.BtoA} {
			fmt.Printf("%v %+v\n", one, l.Stats(one))
		}
	default:
		return errors.New("commands are set, cut, mend and stats")
	}
	return nil
}
