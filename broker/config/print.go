package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/poemq/poemq/broker/policy"
)

// Print writes c as a file that loads as c, with where each value is from. It
// holds no secrets: keys are named by their files.
func (c *Config) Print(w io.Writer) error {
	var b strings.Builder
	section := ""
	for i := range keys {
		s, name, _ := strings.Cut(keys[i].name, ".")
		if s != section {
			if section != "" {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "[%s]\n", s)
			section = s
		}
		fmt.Fprintf(&b, "%-40s # %v\n", name+" = "+keys[i].show(c), c.origins[keys[i].name])
	}
	for i := range c.Rules {
		printRule(&b, &c.Rules[i])
	}
	for _, a := range c.Allows {
		t := begin(&b, "allow", a.Where)
		t.list("peer", a.Peers)
		t.line("port", showPorts(a.Ports))
	}
	for _, e := range c.Exposes {
		t := begin(&b, "expose", e.Where)
		t.text("listen", "udp/"+e.Listen.String())
		t.text("to", e.To.String())
		t.text("identity", e.Identity)
	}
	for _, f := range c.Forwards {
		t := begin(&b, "forward", f.Where)
		t.text("listen", "tcp/"+f.Listen.String())
		t.text("to", f.To.String())
		t.text("mode", f.Mode.String())
		t.text("identity", f.Identity)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printRule(b *strings.Builder, r *policy.Rule) {
	t := begin(b, "rule", r.Where)
	t.text("name", r.Name)
	t.list("to", texted(r.To))
	t.list("listen", texted(r.Listen))
	t.line("port", showPorts(r.Ports))
	if len(r.UIDs) > 0 {
		t.line("uid", showList(r.UIDs, func(u uint32) string { return strconv.FormatUint(uint64(u), 10) }))
	}
	t.list("cgroup", r.Cgroups)
	t.list("session", r.Sessions)
	t.text("mode", r.Mode.String())
	t.text("identity", r.Identity)
	if r.ZeroRTT {
		t.line("zero_rtt", "true")
	}
	t.text("alpn", r.ALPN)
	if r.Framing != policy.FramingPoemq {
		t.text("framing", r.Framing.String())
	}
}

// printed is a table that is being written. What is empty is left out.
type printed struct{ *strings.Builder }

func begin(b *strings.Builder, name, where string) printed {
	fmt.Fprintf(b, "\n%-40s # %s\n", "[["+name+"]]", where)
	return printed{b}
}

func (p printed) line(name, shown string) {
	if shown != "" {
		fmt.Fprintf(p, "%s = %s\n", name, shown)
	}
}

func (p printed) text(name, s string) {
	if s != "" {
		p.line(name, quote(s))
	}
}

func (p printed) list(name string, all []string) {
	if len(all) > 0 {
		p.line(name, showList(all, quote))
	}
}

func texted[T fmt.Stringer](all []T) []string {
	var list []string
	for _, one := range all {
		list = append(list, one.String())
	}
	return list
}

func showPorts(all []policy.Ports) string {
	if len(all) == 0 {
		return ""
	}
	return showList(all, func(p policy.Ports) string {
		if p.First == p.Last {
			return p.String()
		}
		return quote(p.String())
	})
}

func showList[T any](all []T, show func(T) string) string {
	var list []string
	for _, one := range all {
		list = append(list, show(one))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// quote writes a basic string. Every escape of JSON is one of TOML.
func quote(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // of text: cannot fail
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
