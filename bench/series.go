package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// series is a figure that is measured at several sizes of something.
type series struct {
	Title, Of string // what is measured; what grows
	Unit      string
	Way       string
}

// addPoint adds a round's value at size x.
func (r *results) addPoint(s series, x int, value float64) {
	if r.points[s] == nil {
		r.points[s] = map[int][]float64{}
		r.series = append(r.series, s)
	}
	r.points[s][x] = append(r.points[s][x], value)
}

// sizes are those at which a series was measured, the smallest first.
func (r *results) sizes(s series) []int { return slices.Sorted(maps.Keys(r.points[s])) }

// printSeries prints a table for each thing that grew.
func (r *results) printSeries(w io.Writer) {
	var grown []string
	for _, s := range r.series {
		if !slices.Contains(grown, s.Of) {
			grown = append(grown, s.Of)
		}
	}
	for _, of := range grown {
		var rows []series
		for _, s := range r.series {
			if s.Of == of {
				rows = append(rows, s)
			}
		}
		slices.SortStableFunc(rows, func(a, b series) int { return strings.Compare(a.Title, b.Title) })
		line := pad("beside so many idle "+of, figureWidth) + pad("unit", unitWidth) + pad("way", 9)
		for _, x := range r.sizes(rows[0]) {
			line += padLeft(fmt.Sprint(x), wayWidth)
		}
		fmt.Fprintf(w, "\n%s\n", line)
		for _, s := range rows {
			line := pad(s.Title, figureWidth) + pad(s.Unit, unitWidth) + pad(s.Way, 9)
			for _, x := range r.sizes(s) {
				line += padLeft(cell(spreadOf(r.points[s][x])), wayWidth)
			}
			fmt.Fprintln(w, line)
		}
	}
}

// pointValue is a series in the JSON file.
type pointValue struct {
	series
	Points map[int][]float64
}

func (r *results) plainPoints() (all []pointValue) {
	for _, s := range r.series {
		all = append(all, pointValue{s, r.points[s]})
	}
	return all
}
