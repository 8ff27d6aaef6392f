package config

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFile is the most octets of a file that are read.
const maxFile = 1 << 20

// table is a [name] or [[name]] of a file, with its keys; the name is empty
// before the first.
type table struct {
	name    string
	list    bool // [[name]]
	line    int
	entries []entry
}

// entry is a key and its value. The key of a value in an inline table is
// dotted, as if it had been written so.
type entry struct {
	key string
	value
}

// parse reads a file as tables in their order. An error names name and the line.
func parse(name string, data []byte) ([]table, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %s", name, showSize(maxFile))
	}
	// The parser alone does not see what is defined twice.
	var all map[string]any
	if err := toml.Unmarshal(data, &all); err != nil {
		if e, ok := errors.AsType[*toml.DecodeError](err); ok {
			line, _ := e.Position()
			return nil, fmt.Errorf("%s: %s", at(name, line), strings.TrimPrefix(e.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
	}
	r := reader{tables: []table{{}}}
	r.p.Reset(data)
	for r.p.NextExpression() {
		r.expression(r.p.Expression())
	}
	if err := r.p.Error(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r.tables, nil
}

// reader turns the parser's expressions into tables.
type reader struct {
	p      unstable.Parser
	tables []table
}

func (r *reader) expression(n *unstable.Node) {
	switch n.Kind {
	case unstable.Table, unstable.ArrayTable:
		key, line := r.key(n)
		r.tables = append(r.tables, table{name: key, list: n.Kind == unstable.ArrayTable, line: line})
	case unstable.KeyValue:
		key, line := r.key(n)
		last := &r.tables[len(r.tables)-1]
		last.entries = append(last.entries, r.entries(key, line, n.Value())...)
	default: // comments
	}
}

// entries is a key and its value, or those of the inline table behind it.
func (r *reader) entries(key string, line int, v *unstable.Node) []entry {
	if v.Kind != unstable.InlineTable {
		return []entry{{key, r.value(v, line)}}
	}
	var all []entry
	for _, e := range r.inline(v) {
		e.key = key + "." + e.key
		all = append(all, e)
	}
	return all
}

func (r *reader) inline(v *unstable.Node) []entry {
	var all []entry
	for it := v.Children(); it.Next(); {
		if n := it.Node(); n.Kind == unstable.KeyValue {
			key, line := r.key(n)
			all = append(all, r.entries(key, line, n.Value())...)
		}
	}
	return all
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// key is n's dotted key and where it stands.
func (r *reader) key(n *unstable.Node) (string, int) {
	var parts []string
	line := 0
	for it := n.Key(); it.Next(); {
		k := it.Node()
		part := string(k.Data)
		if !bareKey.MatchString(part) {
			part = strconv.Quote(part) // a dot in it is none between two
		}
		if line == 0 {
			line = r.line(k, 0)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "."), line
}

func (r *reader) line(n *unstable.Node, otherwise int) int {
	if n.Raw.Length == 0 {
		return otherwise
	}
	return r.p.Shape(n.Raw).Start.Line
}

func (r *reader) value(n *unstable.Node, line int) value {
	v := value{line: r.line(n, line)}
	switch n.Kind {
	case unstable.String:
		v.any = string(n.Data)
	case unstable.Bool:
		v.any = string(n.Data) == "true"
	case unstable.Integer:
		if i, err := strconv.ParseInt(string(n.Data), 0, 64); err == nil {
			v.any = i
		}
	case unstable.Array:
		list := []value{}
		for it := n.Children(); it.Next(); {
			if it.Node().Kind != unstable.Comment {
				list = append(list, r.value(it.Node(), v.line))
			}
		}
		v.any = list
	case unstable.InlineTable:
		v.any = r.inline(n)
	default: // floats and dates, which no key takes
	}
	return v
}

func at(file string, line int) string { return file + ":" + strconv.Itoa(line) }

// readFile is os.ReadFile for files of a sane size.
func readFile(name string) ([]byte, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", name)
	}
	if st.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %s", name, showSize(maxFile))
	}
	return os.ReadFile(name)
}
