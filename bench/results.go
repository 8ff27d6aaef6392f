package main

import (
	"fmt"
	"math"
	"slices"
)

// figure is a row of the table.
type figure struct {
	Name string // of the part, then what it is: "bulk up, 1 stream"
	Unit string
	More bool // more is better
}

// key is where values stand: a figure of a way.
type key struct{ figure, way string }

// results are all values, one a round.
type results struct {
	figures []figure
	values  map[key][]float64
	series  []series
	points  map[series]map[int][]float64
	notes   []string // what the reader has to know
	failed  []string // what could not be measured and should have been
}

func newResults() *results {
	return &results{values: map[key][]float64{}, points: map[series]map[int][]float64{}}
}

// add adds a round's value.
func (r *results) add(f figure, way string, value float64) {
	if !slices.Contains(r.figures, f) {
		r.figures = append(r.figures, f)
	}
	k := key{f.Name, way}
	r.values[k] = append(r.values[k], value)
}

func (r *results) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(r.notes, n) {
		r.notes = append(r.notes, n)
	}
}

// spread is a median, and half of the distance between the quartiles.
type spread struct{ median, half float64 }

func (s spread) valid() bool { return !math.IsNaN(s.median) }

// percent is the spread in percent of the median.
func (s spread) percent() float64 {
	if s.median == 0 {
		return 0
	}
	return 100 * s.half / math.Abs(s.median)
}

func spreadOf(all []float64) spread {
	sorted := slices.DeleteFunc(slices.Clone(all), math.IsNaN)
	slices.Sort(sorted)
	if len(sorted) == 0 {
		return spread{math.NaN(), math.NaN()}
	}
	at := func(part float64) float64 {
		x := part * float64(len(sorted)-1)
		i := int(x)
		if i+1 == len(sorted) {
			return sorted[i]
		}
		return sorted[i] + (x-float64(i))*(sorted[i+1]-sorted[i])
	}
	return spread{at(0.5), (at(0.75) - at(0.25)) / 2}
}

// of is the median over the rounds.
func (r *results) of(name, way string) spread { return spreadOf(r.values[key{name, way}]) }

// ratio divides round by round: what slows a round down falls on both.
func (r *results) ratio(a, b key) spread {
	over, under := r.values[a], r.values[b]
	var all []float64
	for i := range min(len(over), len(under)) {
		all = append(all, over[i]/under[i])
	}
	return spreadOf(all)
}
