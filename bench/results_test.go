package main

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{5}, spread{5, 0}},
		{[]float64{3, 1, 2}, spread{2, 0.5}},
		{[]float64{4, 1, 3, 2, 5}, spread{3, 1}},
		{[]float64{1, math.NaN(), 3}, spread{2, 0.5}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
	if spreadOf(nil).valid() {
		t.Error("nothing has a median")
	}
}

// TestBars: the ratio is made in each round, a stand-in is scaled by the
// kernel's TCP, and what was not measured is not missed.
func TestBars(t *testing.T) {
	r := newResults()
	f := figure{bulkOne, "Gbit/s", true}
	for _, v := range []struct{ two, quicGo float64 }{{2, 1}, {40, 20}, {12, 3}} { // 2, 2, 4
		r.add(f, two, v.two)
		r.add(f, quicGo, v.quicGo)
	}
	ping := figure{pingApart, "µs", false}
	r.add(ping, tcp, 32) // half of then, so that poem-quicly would have 55.5
	r.add(ping, one, 111)
	var out bytes.Buffer
	if missed := r.print(&out); missed != 1 {
		t.Errorf("%d bars are missed, want 1", missed)
	}
	for _, want := range []string{
		"one bulk stream, two brokers ÷ quic-go ≥ 1.8 2.00 ±25% ✓",
		"ping-pong 64 B, one broker ÷ poem-quicly ≤ 1 2.00 ±0% ✗ missed (poem-quicly stands in",
		"8 bulk streams, two brokers ÷ quic-go ≥ 1.3 not measured",
		bulkOne + " Gbit/s – 3.00 ±158% 12.0", // kernel TCP has no value here
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestValues(t *testing.T) {
	v, err := values([]byte("ns 12\nbytes 3e9\n"))
	if err != nil || v["ns"] != 12 || v["bytes"] != 3e9 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := values([]byte("port many\n")); err == nil {
		t.Error("a word passed for a number")
	}
}

func TestNumber(t *testing.T) {
	for x, want := range map[float64]string{0.123: "0.12", 9.99: "9.99", 12.34: "12.3", 1234.5: "1234"} {
		if got := number(x); got != want {
			t.Errorf("%v: %s, want %s", x, got, want)
		}
	}
}
