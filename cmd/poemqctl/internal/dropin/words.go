package dropin

import "strings"

// command is one command line of ExecStart= (systemd.service(5), "Command
// lines"), taken apart only as far as needed: everything keeps its quotes,
// variables and specifiers.
type command struct {
	prefix string // of "@-:+!|"
	path   string // as written
	argv0  string // as written; with "@" only
	rest   string // all that follows
}

const prefixes = "@-:+!|"

// commands splits a value of ExecStart= at its lone semicolons.
func commands(value string) (all []command) {
	start := 0
	add := func(end int) {
		if c, ok := parse(value[start:end]); ok {
			all = append(all, c)
		}
	}
	for _, w := range words(value) {
		if value[w.from:w.to] == ";" {
			add(w.from)
			start = w.to
		}
	}
	add(len(value))
	return all
}

func parse(line string) (c command, ok bool) {
	line = strings.TrimSpace(line)
	n := len(line) - len(strings.TrimLeft(line, prefixes))
	c.prefix, line = line[:n], line[n:]
	c.path, line = next(line)
	if strings.Contains(c.prefix, "@") {
		c.argv0, line = next(line)
	}
	c.rest = line
	return c, c.path != ""
}

// next cuts the first word off.
func next(line string) (word, rest string) {
	ws := words(line)
	if len(ws) == 0 {
		return "", ""
	}
	return line[ws[0].from:ws[0].to], strings.TrimSpace(line[ws[0].to:])
}

type span struct{ from, to int }

// words finds where words are; quotes and backslashes hold them together.
func words(s string) (all []span) {
	from, quote := -1, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		blank := c == ' ' || c == '\t' || c == '\n'
		switch {
		case quote == 0 && blank:
			if from >= 0 {
				all = append(all, span{from, i})
				from = -1
			}
			continue
		case from < 0:
			from = i
		}
		switch {
		case c == '\\':
			i++
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		}
	}
	if from >= 0 {
		all = append(all, span{from, len(s)})
	}
	return all
}
