package link

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Params{
		"":                        {},
		"delay=25ms,rate=100M":    {Delay: 25 * time.Millisecond, Rate: 100e6},
		"loss=1%,reorder=0.005":   {Loss: 0.01, Reorder: 0.005},
		"queue=256k,seed=7":       {Queue: 256 << 10, Seed: 7},
		"rate=1.5G,queue=1M":      {Rate: 1.5e9, Queue: 1 << 20},
		"rate=9600,queue=1000":    {Rate: 9600, Queue: 1000},
		"rate=64k,delay=0,loss=0": {Rate: 64e3},
	} {
		if got, err := Parse(text); got != want || err != nil {
			t.Errorf("Parse(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, says := range map[string]string{
		"delay=5":   "missing unit",
		"delay=-1s": "negative",
		"rate=fast": "rate=fast",
		"rate=-1":   "negative",
		"queue=-1":  "negative",
		"loss=101%": "between 0 and 1",
		"reorder=2": "between 0 and 1",
		"jitter=1s": "none of delay",
		"loss":      "loss",
	} {
		if got, err := Parse(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Parse(%q) = %+v, %v, want an error with %q", text, got, err, says)
		}
	}
}

func TestQueue(t *testing.T) {
	for _, c := range []struct {
		p    Params
		want int
	}{
		{Params{Queue: 1000, Rate: 1e9, Delay: time.Second}, 1000},
		{Params{Rate: 100e6, Delay: 25 * time.Millisecond}, 625_000},
		{Params{Rate: 1e6, Delay: time.Millisecond}, leastQueue},
	} {
		if got := c.p.queue(); got != c.want {
			t.Errorf("the queue of %+v has %d octets, want %d", c.p, got, c.want)
		}
	}
}
