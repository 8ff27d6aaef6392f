// Command reference fills a man page in: it copies standard input to standard
// output, with
//
//	@REFERENCE NAME@  replaced by the commands and flags of bin/NAME, as its own
//	                  --help tells them, and
//	@FILE PATH@       by that file, for a literal block.
//
// So a page cannot lack a flag. It is run at the top of the repository.
package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reference DIRECTORY-WITH-THE-PROGRAMS <PAGE.scd")
		os.Exit(2)
	}
	if err := fill(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

var place = regexp.MustCompile(`^@(REFERENCE|FILE) (\S+)@$`)

func fill(bin string) error {
	out := bufio.NewWriter(os.Stdout)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		text := in.Text()
		if m := place.FindStringSubmatch(text); m != nil {
			var err error
			if text, err = replaced(bin, m[1], m[2]); err != nil {
				return err
			}
		}
		fmt.Fprintln(out, text)
	}
	if err := in.Err(); err != nil {
		return err
	}
	return out.Flush()
}

func replaced(bin, kind, name string) (string, error) {
	if kind == "FILE" {
		text, err := os.ReadFile(name)
		return strings.TrimRight(string(text), "\n"), err
	}
	var b strings.Builder
	err := describe(&b, filepath.Join(bin, name), nil, name == "poemq-launch")
	return strings.TrimRight(b.String(), "\n"), err
}

// flag is a line of flags in cobra's and pflag's help.
var flag = regexp.MustCompile(`^ +(?:(-\w), )?--([\w-]+)(?:\[=true\|false\])?(?: (\S+))? {2,}(.*)$`)

// command is a line of commands in cobra's help.
var command = regexp.MustCompile(`^  ([\w-]+) +\S`)

// describe writes a command and those below it. bare is for a program without
// commands.
func describe(b *strings.Builder, program string, path []string, bare bool) error {
	out, err := exec.Command(program, append(path[:len(path):len(path)], "--help")...).Output()
	if err != nil {
		return fmt.Errorf("%s %s --help: %w", program, strings.Join(path, " "), err)
	}
	var usage, below []string
	section, long := "", []string(nil)
	if len(path) > 0 {
		fmt.Fprintf(b, "## %s %s\n\n", escape(filepath.Base(program)), escape(strings.Join(path, " ")))
	}
	flags := &strings.Builder{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "Usage:" || line == "Available Commands:" || line == "Flags:" || line == "Global Flags:" || line == "Examples:" || line == "Aliases:":
			section = line
		case section == "" && !bare && line != "":
			long = append(long, escape(line))
		case section == "" && !bare:
			long = append(long, "")
		case section == "Usage:" && line != "":
			usage = append(usage, strings.TrimSpace(line))
		case section == "Available Commands:":
			if m := command.FindStringSubmatch(line); m != nil && m[1] != "help" && m[1] != "completion" {
				below = append(below, m[1])
			}
		case section == "Global Flags:": // said once, with the command that has them
		default:
			if m := flag.FindStringSubmatch(line); m != nil {
				writeFlag(flags, m)
			}
		}
	}
	if len(path) > 0 {
		fmt.Fprintf(b, "*%s*\n\n", escape(usage[0]))
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(strings.Join(long, "\n")))
	}
	b.WriteString(flags.String())
	for _, name := range below {
		if err := describe(b, program, append(path[:len(path):len(path)], name), false); err != nil {
			return err
		}
	}
	return nil
}

func writeFlag(b *strings.Builder, m []string) {
	if m[2] == "help" {
		return
	}
	if m[1] != "" {
		fmt.Fprintf(b, "*%s*, ", m[1])
	}
	fmt.Fprintf(b, "*--%s*", m[2])
	if m[3] != "" {
		fmt.Fprintf(b, " _%s_", escape(strings.ToUpper(m[3])))
	}
	fmt.Fprintf(b, "\n\t%s\n\n", escape(m[4]))
}

// escape keeps scdoc from seeing more than text (scdoc(5)).
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `_`, `\_`, `#`, `\#`, `~`, `\~`, `[`, `\[`).Replace(s)
}
