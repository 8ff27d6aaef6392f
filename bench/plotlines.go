package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// chart is a panel with lines of several ways over the same sizes.
type chart struct {
	title, of, unit string
	lines           []series
}

// plotSeries draws how figures grow with the number of idle connections.
func (r *results) plotSeries(d *drawing, y float64) float64 {
	var charts []*chart
	for _, s := range r.series {
		var c *chart
		for _, had := range charts {
			if had.title == s.Title && had.of == s.Of {
				c = had
			}
		}
		if c == nil {
			c = &chart{title: s.Title, of: s.Of, unit: s.Unit}
			charts = append(charts, c)
		}
		c.lines = append(c.lines, s)
	}
	heights := make([]float64, len(charts))
	for i := range heights {
		heights[i] = chartHeight + 50 + unitLine
	}
	return grid(y, heights, func(i int, x, y float64) { r.plotChart(d, charts[i], x, y) })
}

func (r *results) plotChart(d *drawing, c *chart, x, y float64) {
	d.text(x, y+11, "title", c.title)
	d.text(x, y+24, "small", c.unit+", beside idle "+c.of)
	y += unitLine
	left, top, right, bottom := x+labelWidth-10, y+22, x+panelWidth-46, y+22+chartHeight
	least, most, high := math.Inf(1), 1.0, 0.0
	for _, s := range c.lines {
		for _, n := range r.sizes(s) {
			least, most = min(least, float64(n)), max(most, float64(n))
			high = max(high, spreadOf(r.points[s][n]).median)
		}
	}
	high = nice(high)
	across := func(n float64) float64 {
		return left + (right-left)*math.Log(n/least)/math.Log(max(2, most/least))
	}
	up := func(v float64) float64 { return bottom - (bottom-top)*v/high }
	for i := range 5 {
		v := high * float64(i) / 4
		d.line(left, up(v), right, up(v), "grid")
		d.text(left-5, up(v)+4, "small right", short(v))
	}
	for _, n := range r.sizes(c.lines[0]) {
		d.text(across(float64(n)), bottom+13, "middle", short(float64(n)))
	}
	d.line(left, bottom, right, bottom, "axis")
	ends := map[string]float64{} // where the lines' names belong
	for _, s := range c.lines {
		var points []string
		for _, n := range r.sizes(s) {
			px, py := across(float64(n)), up(spreadOf(r.points[s][n]).median)
			points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
			fmt.Fprintf(d, `<circle cx="%.1f" cy="%.1f" r="2.5" fill="%s"/>`+"\n", px, py, colours[s.Way])
			ends[s.Way] = py + 4
		}
		fmt.Fprintf(d, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.6"/>`+"\n", strings.Join(points, " "), colours[s.Way])
	}
	next := bottom + 4 // from below, so that none is on another
	for _, way := range slices.SortedFunc(maps.Keys(ends), func(a, b string) int { return cmp.Compare(ends[b], ends[a]) }) {
		next = min(next, ends[way])
		d.text(right+6, next, "", way)
		next -= 12
	}
}

// nice is the next number at or above x that divides well by four.
func nice(x float64) float64 {
	if x <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 4, 6, 8, 10} {
		if x <= m*power {
			return m * power
		}
	}
	return 10 * power
}

// short prints an axis' number.
func short(x float64) string {
	if x >= 10_000 {
		return fmt.Sprintf("%gk", x/1000)
	}
	return fmt.Sprintf("%.4g", x)
}
