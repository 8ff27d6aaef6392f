package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// plotted are the figures that have a panel, in this order.
var plotted = []string{
	bulkOne, "bulk up, 8 streams", "bulk down, 1 stream",
	cpuOfOne, "bulk up, 1 stream, 16 KiB writes", "bulk up, 1 stream, 1460 B writes",
	ping64, "ping-pong 64 B, p99", "ping-pong 16 KiB, p50",
	pingApart,
	wholeConnect + ", p50", "connect + 64 B echo + close, new peer, p50", "connects, pooled",
	iperf1, iperf4, "iperf3 up, 64 streams",
	nginxKeep, nginxClose, redis10,
	redis50, idleBulk + idleCrowd, idlePingP99 + idleCrowd,
	"bulk up, 100 Mbit/s, 50 ms, 0.0 % loss", "bulk up, 100 Mbit/s, 50 ms, 0.1 % loss", pathLossy,
}

// colours of the ways; those of poemq are related.
var colours = map[string]string{
	tcp: "#8a8f98", tls: "#c9a227", quicGo: "#3b76af", two: "#b8322a", one: "#d9695f", direct: "#eba9a1", hooked: "#7d3c98", quicly: "#6a9a52", floor: "#bbbbbb",
}

const (
	panelWidth  = 370
	panelGap    = 20
	columns     = 3
	rowHeight   = 17
	chartHeight = 150
	labelWidth  = 58
	unitLine    = 12 // below a title
	// Room for a value with its spread, behind the longest bar.
	valueWidth = 92
)

// drawing is an SVG under way.
type drawing struct{ strings.Builder }

func (d *drawing) text(x, y float64, class, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" class="%s">`, x, y, class)
	_ = xml.EscapeText(d, []byte(s)) // a Builder takes everything
	d.WriteString("</text>\n")
}

func (d *drawing) rect(x, y, w, h float64, colour string) {
	fmt.Fprintf(d, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", x, y, w, h, colour)
}

func (d *drawing) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(d, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

const style = `<style>
text { font-family: sans-serif; font-size: 11px; fill: #222 }
.title { font-size: 12px; font-weight: bold } .head { font-size: 16px; font-weight: bold }
.small { font-size: 10px; fill: #555 } .right { text-anchor: end } .middle { text-anchor: middle; font-size: 10px; fill: #555 }
.axis { stroke: #999; stroke-width: 1 } .grid { stroke: #e4e4e4; stroke-width: 1 } .spread { stroke: #222; stroke-width: 1.2 }
.good { fill: #2e7d32; font-weight: bold } .bad { fill: #b8322a; font-weight: bold }
</style>
`

// plot draws the main figures, the bars and what grew as SVG.
func (r *results) plot() string {
	d := &drawing{}
	y := 34.0
	d.text(panelGap, y-10, "head", "poemq beside its peers")
	for _, way := range r.present() {
		i := slices.IndexFunc(ways, func(w struct{ name, title string }) bool { return w.name == way })
		d.rect(panelGap, y+3, 10, 10, colours[way])
		d.text(panelGap+16, y+12, "", way+": "+ways[i].title)
		y += 15
	}
	y = r.plotFigures(d, y+10)
	y = r.plotBars(d, y)
	y = r.plotSeries(d, y)
	for _, n := range r.notes {
		d.text(panelGap, y, "small", n)
		y += 14
	}
	width := columns*panelWidth + (columns+1)*panelGap
	head := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" viewBox="0 0 %d %.0f">`+"\n", width, y+10, width, y+10)
	return head + style + `<rect width="100%" height="100%" fill="white"/>` + "\n" + d.String() + "</svg>\n"
}

// grid places panels of rows and gives where the next thing below them begins.
func grid(y float64, heights []float64, draw func(i int, x, y float64)) float64 {
	for i := 0; i < len(heights); i += columns {
		row := heights[i:min(i+columns, len(heights))]
		for j := range row {
			draw(i+j, panelGap+float64(j)*(panelWidth+panelGap), y)
		}
		y += slices.Max(row) + panelGap
	}
	return y
}

// measured are the ways that have values of a figure.
func (r *results) measured(name string) (all []string) {
	for _, w := range ways {
		if r.of(name, w.name).valid() {
			all = append(all, w.name)
		}
	}
	return all
}

func (r *results) plotFigures(d *drawing, y float64) float64 {
	var figures []figure
	var heights []float64
	for _, name := range plotted {
		i := slices.IndexFunc(r.figures, func(f figure) bool { return f.Name == name })
		if i < 0 {
			continue
		}
		figures = append(figures, r.figures[i])
		heights = append(heights, 20+unitLine+rowHeight*float64(len(r.measured(name))))
	}
	return grid(y, heights, func(i int, x, y float64) { r.plotFigure(d, figures[i], x, y) })
}

// plotFigure is a panel with a bar for each way.
func (r *results) plotFigure(d *drawing, f figure, x, y float64) {
	better := "less is better"
	if f.More {
		better = "more is better"
	}
	d.text(x, y+11, "title", f.Name)
	d.text(x, y+24, "small", f.Unit+", "+better)
	y += unitLine
	most := 0.0
	all := r.measured(f.Name)
	for _, way := range all {
		most = max(most, r.of(f.Name, way).median)
	}
	scale := (panelWidth - labelWidth - valueWidth) / most
	for i, way := range all {
		s := r.of(f.Name, way)
		top := y + 18 + rowHeight*float64(i)
		end := x + labelWidth + s.median*scale
		d.text(x+labelWidth-6, top+11, "right", way)
		d.rect(x+labelWidth, top+2, max(1, s.median*scale), rowHeight-5, colours[way])
		half := min(s.half, s.median) * scale
		d.line(end-half, top+rowHeight/2, min(end+half, x+panelWidth-valueWidth+20), top+rowHeight/2, "spread")
		d.text(min(end+half, x+panelWidth-valueWidth+20)+6, top+11, "", cell(s))
	}
	d.line(x+labelWidth, y+18, x+labelWidth, y+18+rowHeight*float64(len(all)), "axis")
}

// plotBars lists the bars with their marks.
func (r *results) plotBars(d *drawing, y float64) float64 {
	const titleWidth = 400
	d.text(panelGap, y+11, "title", "bars")
	y += 18
	for _, b := range bars {
		v := b.of(r)
		d.text(panelGap, y+11, "", v.title)
		d.text(panelGap+titleWidth, y+11, "right", v.wanted())
		mark, class := "✗ missed", "bad"
		switch {
		case !v.got.valid():
			mark, class = "not measured", "small"
		case v.kept():
			mark, class = "✓", "good"
		}
		if v.got.valid() {
			d.text(panelGap+titleWidth+90, y+11, "right", cell(v.got))
			// How far from what is wanted: to the right is better, a factor of 8 is all.
			better := v.got.median / v.limit
			if v.most {
				better = 1 / better
			}
			const middle, half = panelGap + titleWidth + 340.0, 160.0
			length := max(-1, min(1, math.Log(better)/math.Log(8))) * half
			colour := map[bool]string{true: "#2e7d32", false: "#b8322a"}[v.kept()]
			d.rect(middle+min(0, length), y+3, max(1, math.Abs(length)), rowHeight-7, colour)
			d.line(middle, y, middle, y+rowHeight, "axis")
		}
		d.text(panelGap+titleWidth+100, y+11, class, mark)
		if v.stood && v.got.valid() {
			d.text(panelGap+titleWidth+510, y+11, "small", "with a stand-in for poem-quicly")
		}
		y += rowHeight
	}
	return y + panelGap
}
