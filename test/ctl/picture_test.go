package ctl

import (
	"fmt"
	"image/color"
	"image/png"
	"os"
	"strings"
	"testing"
)

// checkPicture tells what lacks of a picture in which something was drawn: a line
// of the charts and text, on a page that is not all of one colour.
func checkPicture(t *testing.T, path string) (fault string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	count := map[color.RGBA]int{}
	size := picture.Bounds()
	for y := size.Min.Y; y < size.Max.Y; y++ {
		for x := size.Min.X; x < size.Max.X; x++ {
			r, g, b, _ := picture.At(x, y).RGBA()
			count[color.RGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 255}]++
		}
	}
	if size.Dx() < 1000 || len(count) < 50 {
		return fmt.Sprintf("the picture is %v with %d colours", size, len(count))
	}
	line := color.RGBA{0x1f, 0x6f, 0xeb, 255} // --a of page.css
	if count[line] < 100 {
		return fmt.Sprintf("%d points have the colour of the charts' line", count[line])
	}
	return ""
}

// listensOn is the one TCP address that a process listens on (proc(5)), as a URL.
func listensOn(t *testing.T, pid int) string {
	t.Helper()
	sockets := map[string]bool{}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())); err == nil {
			sockets[to] = true
		}
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != "0A" || !sockets["socket:["+f[9]+"]"] {
			continue
		}
		var address, port uint32
		if _, err := fmt.Sscanf(f[1], "%X:%X", &address, &port); err == nil && address == 0x0100007f {
			url := fmt.Sprintf("http://127.0.0.1:%d", port)
			if _, err := fetch(url + "/metrics"); err == nil {
				return url
			}
		}
	}
	t.Fatal("poemqd serves no metrics")
	return ""
}
