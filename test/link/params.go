package link

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Params say what one direction of a path does to packets. The zero value is a
// path without limits.
type Params struct {
	Delay   time.Duration // one way
	Rate    float64       // bit/s of IP packets; 0: no limit
	Queue   int           // octets that wait for the rate; 0: what two Delays carry, 64 KiB at least
	Loss    float64       // probability, of each packet by itself
	Reorder float64       // probability that a packet arrives without Delay, before others
	Seed    uint64        // of the dice for loss and reordering
}

const leastQueue = 64 << 10

func (p Params) queue() int {
	if p.Queue > 0 {
		return p.Queue
	}
	return max(leastQueue, int(p.Rate/8*(2*p.Delay).Seconds()))
}

func (p Params) check() error {
	switch {
	case p.Delay < 0:
		return fmt.Errorf("delay %v is negative", p.Delay)
	case p.Rate < 0:
		return fmt.Errorf("rate %v is negative", p.Rate)
	case p.Queue < 0:
		return fmt.Errorf("queue %d is negative", p.Queue)
	case p.Loss < 0 || p.Loss > 1:
		return fmt.Errorf("loss %v is not between 0 and 1", p.Loss)
	case p.Reorder < 0 || p.Reorder > 1:
		return fmt.Errorf("reordering %v is not between 0 and 1", p.Reorder)
	}
	return nil
}

// Parse reads what people write: "delay=25ms,rate=100M,loss=1%,reorder=0.5%,
// queue=256k,seed=7". Rates take the suffixes k, M and G of 1000, octets those
// of 1024. What it does not name is zero.
func Parse(text string) (p Params, err error) {
	for field := range strings.SplitSeq(text, ",") {
		if field == "" {
			continue
		}
		key, value, _ := strings.Cut(field, "=")
		var n float64
		switch key {
		case "delay":
			p.Delay, err = time.ParseDuration(value)
		case "rate":
			p.Rate, err = number(value, 1000)
		case "queue":
			n, err = number(value, 1024)
			p.Queue = int(n)
		case "loss":
			p.Loss, err = share(value)
		case "reorder":
			p.Reorder, err = share(value)
		case "seed":
			p.Seed, err = strconv.ParseUint(value, 10, 64)
		default:
			err = fmt.Errorf("none of delay, rate, queue, loss, reorder, seed")
		}
		if err != nil {
			return Params{}, fmt.Errorf("link parameter %q: %w", field, err)
		}
	}
	if err := p.check(); err != nil {
		return Params{}, fmt.Errorf("link parameters %q: %w", text, err)
	}
	return p, nil
}

// number reads "64k" and the like; kilo is 1000 or 1024.
func number(text string, kilo float64) (float64, error) {
	factor := 1.0
	for _, suffix := range []string{"k", "M", "G"} {
		factor *= kilo
		if head, ok := strings.CutSuffix(text, suffix); ok {
			n, err := strconv.ParseFloat(head, 64)
			return n * factor, err
		}
	}
	return strconv.ParseFloat(text, 64)
}

// share reads "0.01" or "1%".
func share(text string) (float64, error) {
	if head, ok := strings.CutSuffix(text, "%"); ok {
		n, err := strconv.ParseFloat(head, 64)
		return n / 100, err
	}
	return strconv.ParseFloat(text, 64)
}
