package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// report prints the table and writes it, the values and the plot into out. It
// tells how many bars are missed.
func (b *bench) report(out string) (missed int, err error) {
	var text strings.Builder
	missed = b.print(&text)
	fmt.Print(text.String())
	if err := os.MkdirAll(out, 0o755); err != nil {
		return missed, err
	}
	data, err := json.MarshalIndent(struct {
		Figures []value
		Growth  []pointValue
	}{b.plainValues(), b.plainPoints()}, "", " ")
	if err != nil {
		return missed, err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(out, "bench.txt"), []byte(text.String()), 0o644),
		os.WriteFile(filepath.Join(out, "bench.svg"), []byte(b.plot()), 0o644),
		os.WriteFile(filepath.Join(out, "bench.json"), append(data, '\n'), 0o644),
	)
	fmt.Fprintf(os.Stderr, "bench: the table, every value and a plot are in %s\n", out)
	return missed, err
}

// print prints everything that was measured.
func (r *results) print(w io.Writer) (missed int) {
	r.printFigures(w)
	r.printSeries(w)
	missed = r.printBars(w)
	for _, n := range r.notes {
		fmt.Fprintln(w, "note:", n)
	}
	for _, f := range r.failed {
		fmt.Fprintln(w, "FAILED:", f)
	}
	return missed
}

// present are the ways that have values.
func (r *results) present() (names []string) {
	for _, w := range ways {
		for k := range r.values {
			if k.way == w.name {
				names = append(names, w.name)
				break
			}
		}
	}
	return names
}

const (
	figureWidth = 46
	unitWidth   = 8
	wayWidth    = 13
)

func (r *results) printFigures(w io.Writer) {
	if len(r.figures) == 0 {
		return
	}
	columns := r.present()
	line := pad("figure", figureWidth) + pad("unit", unitWidth)
	for _, way := range columns {
		line += padLeft(way, wayWidth)
	}
	line += padLeft("two÷tcp", wayWidth) + padLeft("two÷quic-go", wayWidth)
	fmt.Fprintln(w, line)
	for _, f := range r.figures {
		line := pad(f.Name, figureWidth) + pad(f.Unit, unitWidth)
		for _, way := range columns {
			line += padLeft(cell(r.of(f.Name, way)), wayWidth)
		}
		for _, base := range []string{tcp, quicGo} {
			if s := r.ratio(key{f.Name, two}, key{f.Name, base}); s.valid() {
				line += padLeft(cell(s), wayWidth)
			} else {
				line += padLeft("", wayWidth)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
	fmt.Fprintln(w)
	for _, way := range ways {
		if slices.Contains(columns, way.name) {
			fmt.Fprintf(w, "%-8s %s\n", way.name, way.title)
		}
	}
	fmt.Fprintln(w, "medians of the rounds; ± is half of the distance between the quartiles")
}

func (r *results) printBars(w io.Writer) (missed int) {
	fmt.Fprintf(w, "\n%s%s%s\n", pad("bar", 54), padLeft("wanted", 9), padLeft("measured", 16))
	for _, b := range bars {
		v := b.of(r)
		line := pad(v.title, 54) + padLeft(v.wanted(), 9)
		switch {
		case !v.got.valid():
			line += padLeft("not measured", 16)
		case v.kept():
			line += padLeft(cell(v.got), 16) + "  ✓"
		default:
			missed++
			line += padLeft(cell(v.got), 16) + "  ✗ missed"
		}
		if v.stood && v.got.valid() {
			line += "  (poem-quicly stands in: its figure of then, scaled by kernel TCP's of now)"
		}
		fmt.Fprintln(w, line)
	}
	fmt.Fprintln(w)
	return missed
}

func cell(s spread) string {
	if !s.valid() {
		return "–"
	}
	return fmt.Sprintf("%s ±%.0f%%", number(s.median), s.percent())
}

// number has three digits that count.
func number(x float64) string {
	switch {
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) }

func padLeft(s string, n int) string {
	return strings.Repeat(" ", max(0, n-utf8.RuneCountInString(s))) + s
}

// value is a figure of a way in the JSON file.
type value struct {
	figure
	Way    string
	Values []float64
}

func (r *results) plainValues() (all []value) {
	for _, f := range r.figures {
		for _, w := range ways {
			if v := r.values[key{f.Name, w.name}]; v != nil {
				all = append(all, value{f, w.name, v})
			}
		}
	}
	return all
}

// machine is what the figures depend on most.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // it cannot fail
	model := "unknown processor"
	data, _ := os.ReadFile("/proc/cpuinfo")
	cores := 0
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cores++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	control, _ := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	return fmt.Sprintf("%d × %s, Linux %s, TCP %s", cores, model, unix.ByteSliceToString(u.Release[:]), strings.TrimSpace(string(control)))
}
