package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources are where a Config is loaded from.
type Sources struct {
	// Shipped is the file of defaults that packages bring, which need not be
	// there. What it says counts as a default.
	Shipped string
	// File and the *.toml in its directory of drop-ins, FILE without .toml and
	// with .d. Empty: no files.
	File string
	// Required is that File must exist.
	Required bool
	// Lenient passes over files that may not be read.
	Lenient bool
	// More are files read after these, each of which must exist.
	More []string
	// Environ is the environment as os.Environ gives it.
	Environ []string
	Flags   []Flag
}

// Flag is a flag of the command line that was given.
type Flag struct {
	Name string // as it is written, "--state-dir"
	Key  string // that it sets, "state.dir"
	Text string
}

// ShippedFile is the lowest layer above what is built in.
const ShippedFile = "/usr/share/poemq/poemq.toml"

// SystemFile is read unless another one is named.
const SystemFile = "/etc/poemq/poemq.toml"

// UserFile is what an ordinary user's private broker reads in place of
// SystemFile, if it exists; empty when it does not. getenv is os.Getenv.
func UserFile(getenv func(string) string) string {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := getenv("HOME")
		if !filepath.IsAbs(home) {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	file := filepath.Join(dir, "poemq", "poemq.toml")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// Load reads all layers. The error has one line for each fault.
func Load(s Sources) (*Config, error) {
	l := &loader{c: &Config{origins: map[string]Origin{}}}
	l.layer("", []byte(Defaults))
	l.shipped(s)
	for _, name := range l.find(s) {
		data, err := readFile(name)
		switch {
		case err == nil:
			l.c.files = append(l.c.files, name)
			l.layer(name, data)
		case errors.Is(err, fs.ErrNotExist) && name == s.File && !s.Required:
		case errors.Is(err, fs.ErrPermission) && s.Lenient:
		default:
			l.errs = append(l.errs, fmt.Errorf("configuration: %w", err))
		}
	}
	l.environ(s.Environ)
	for _, f := range s.Flags {
		l.single(keyNamed(f.Key), f.Text, f.Name)
	}
	if len(l.errs) == 0 {
		l.together()
	}
	if len(l.errs) > 0 {
		return nil, errors.Join(l.errs...)
	}
	return l.c, nil
}

// loader is a Config in the making.
type loader struct {
	c     *Config
	errs  []error
	ships bool // the file being read is the one of defaults
}

// shipped reads the file of defaults.
func (l *loader) shipped(s Sources) {
	if s.Shipped == "" {
		return
	}
	data, err := readFile(s.Shipped)
	switch {
	case err == nil:
		l.ships = true
		l.layer(s.Shipped, data)
		l.ships = false
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission) && s.Lenient:
	default:
		l.errs = append(l.errs, fmt.Errorf("configuration: %w", err))
	}
}

// find lists the files to read.
func (l *loader) find(s Sources) []string {
	var all []string
	if s.File != "" {
		all = append(all, s.File)
		dir := strings.TrimSuffix(s.File, ".toml") + ".d"
		entries, err := os.ReadDir(dir) // sorted
		if err != nil && !errors.Is(err, fs.ErrNotExist) && (!s.Lenient || !errors.Is(err, fs.ErrPermission)) {
			l.errs = append(l.errs, fmt.Errorf("configuration: %w", err))
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
				all = append(all, filepath.Join(dir, e.Name()))
			}
		}
	}
	return append(all, s.More...)
}

// layer takes over what a file says. The built-in one has no name.
func (l *loader) layer(name string, data []byte) {
	tables, err := parse(name, data)
	if err != nil {
		l.errs = append(l.errs, err)
		return
	}
	for _, t := range tables {
		l.table(name, t)
	}
}

func (l *loader) table(file string, t table) {
	fault := func(key string) func(int, string, error) {
		return func(line int, sub string, err error) { l.fault(file, line, join(key, sub), err) }
	}
	if add := lists[t.name]; add != nil {
		if t.list {
			add(l.c, t, at(file, t.line), fault(t.name))
		} else {
			l.fault(file, t.line, "", fmt.Errorf("[%s] may come several times: write [[%s]]", t.name, t.name))
		}
		return
	}
	switch {
	case t.list && slices.Contains(sections(), t.name):
		l.fault(file, t.line, "", fmt.Errorf("[[%s]] comes only once: write [%s]", t.name, t.name))
		return
	case t.name != "" && !slices.Contains(sections(), t.name):
		l.fault(file, t.line, t.name, unknown(t.name, append(sections(), names(lists)...)))
		return
	}
	for _, e := range t.entries {
		if add := lists[e.key]; add != nil && t.name == "" {
			l.inlineList(file, e, fault(e.key))
			continue
		}
		l.entry(file, join(t.name, e.key), e)
	}
}

// inlineList is a list of tables that is written as a value.
func (l *loader) inlineList(file string, e entry, fault func(int, string, error)) {
	all, ok := e.any.([]value)
	if !ok {
		fault(e.line, "", wrongKind(e.value, "tables: write [["+e.key+"]]"))
		return
	}
	for _, one := range all {
		entries, ok := one.any.([]entry)
		if !ok {
			fault(one.line, "", wrongKind(one, "tables: write [["+e.key+"]]"))
			continue
		}
		lists[e.key](l.c, table{name: e.key, list: true, line: one.line, entries: entries}, at(file, one.line), fault)
	}
}

func (l *loader) entry(file, name string, e entry) {
	k := keyNamed(name)
	if k == nil {
		l.fault(file, e.line, name, unknown(name, keyNames()))
		return
	}
	if err := k.set(l.c, e.value); err != nil {
		l.fault(file, e.line, name, err)
		return
	}
	o := Origin{File: file, Line: e.line}
	if file == "" {
		o = Origin{}
	}
	o.shipped = l.ships
	l.c.origins[name] = o
}

// fault notes an error in a line of file; each of several on its own.
func (l *loader) fault(file string, line int, key string, err error) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range many.Unwrap() {
			l.fault(file, line, key, one)
		}
		return
	}
	if e, ok := errors.AsType[lineError](err); ok {
		line, err = e.line, e.error
	}
	if key != "" {
		key += ": "
	}
	l.errs = append(l.errs, fmt.Errorf("%s: %s%w", at(file, line), key, err))
}

// single takes the value of a flag or environment variable.
func (l *loader) single(k *key, text, from string) {
	if err := k.set(l.c, k.word(text)); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", from, err))
		return
	}
	l.c.origins[k.name] = Origin{File: from}
}

// logVariable is the short name of POEMQ_LOG_LEVEL.
const logVariable = "POEMQ_LOG"

// environ takes the variables that are named like keys. Others that begin with
// POEMQ_ belong to other commands, unless they begin like a section.
func (l *loader) environ(env []string) {
	byName := map[string]*key{logVariable: keyNamed("log.level")}
	for i := range keys {
		byName[keys[i].variable()] = &keys[i]
	}
	env = slices.Clone(env)
	slices.Sort(env) // POEMQ_LOG_LEVEL after POEMQ_LOG, and errors in one order
	for _, v := range env {
		name, text, _ := strings.Cut(v, "=")
		switch k := byName[name]; {
		case !strings.HasPrefix(name, "POEMQ_") || text == "":
		case k != nil:
			l.single(k, text, name)
		case slices.ContainsFunc(sections(), func(s string) bool {
			return strings.HasPrefix(name, "POEMQ_"+strings.ToUpper(s)+"_")
		}):
			l.errs = append(l.errs, fmt.Errorf("%s: %w", name, unknown(name, names(byName))))
		}
	}
}

// together checks what only shows in several keys at once.
func (l *loader) together() {
	c := l.c
	wrong := func(key, what string) {
		l.errs = append(l.errs, fmt.Errorf("%v: %s: %s", c.origins[key], key, what))
	}
	switch {
	case c.TLS.Cert != "" && c.TLS.Key == "":
		wrong("tls.cert", "needs tls.key")
	case c.TLS.Key != "" && c.TLS.Cert == "":
		wrong("tls.key", "needs tls.cert")
	}
	if len(c.TLS.CRL) > 0 && c.TLS.CA == "" {
		wrong("tls.crl", "needs tls.ca, whose certificates it revokes")
	}
	if c.Wire.KeepAlive >= c.Wire.MaxIdle {
		key := "wire.keep_alive"
		if c.origins[key].Built() {
			key = "wire.max_idle"
		}
		wrong(key, fmt.Sprintf("keep_alive, %s, must be shorter than max_idle, %s", showDuration(c.Wire.KeepAlive), showDuration(c.Wire.MaxIdle)))
	}
}

func join(section, key string) string {
	if section == "" || key == "" {
		return section + key
	}
	return section + "." + key
}
