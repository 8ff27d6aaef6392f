package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestPlot: it is well-formed, whatever names hold, and has what was measured.
func TestPlot(t *testing.T) {
	r := newResults()
	for _, way := range []string{tcp, two} {
		r.add(figure{bulkOne, "Gbit/s", true}, way, 3)
		for _, n := range []int{1, 10, 100} {
			r.addPoint(series{"ping-pong 64 B, p50", "streams", "µs", way}, n, float64(100*n))
		}
	}
	r.add(figure{callSocket, "µs", false}, one, 36)
	r.note("a < b & c")
	svg := r.plot()
	texts := map[string]bool{}
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
		if data, ok := token.(xml.CharData); ok {
			texts[string(data)] = true
		}
	}
	for _, want := range []string{"a < b & c", bulkOne, "3.00 ±0%", "✗ missed", "µs, beside idle streams", "two: " + ways[3].title, "10k"} {
		if !texts[want] {
			t.Errorf("no text %q in\n%s", want, svg)
		}
	}
	if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
		t.Errorf("a place that is none in\n%s", svg)
	}
}

func TestNice(t *testing.T) {
	for x, want := range map[float64]float64{0: 1, 3: 4, 10: 10, 11: 20, 61: 80, 0.05: 0.06} {
		if got := nice(x); got != want {
			t.Errorf("%v: %v, want %v", x, got, want)
		}
	}
}
