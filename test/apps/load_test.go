package apps

import (
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

const bigFile = 20 << 20 // what the tests with "a file" move

// testdata returns the path of a script in testdata.
func testdata(name string) string { return filepath.Join(rig.Root(), "test", "apps", "testdata", name) }

// number returns what the pattern's first group matches in the text, as a
// number.
func number(t testing.TB, text, pattern string) float64 {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no match for %q in:\n%s", pattern, text)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// wrk loads the URL for two seconds and demands not one error.
func wrk(r *rig.Rig, url string) {
	r.Helper()
	out := r.Command("wrk", "-t1", "-c16", "-d2s", "--timeout", "10s", url).Output()
	if strings.Contains(out, "Socket errors") || strings.Contains(out, "Non-2xx") {
		r.Errorf("wrk met errors:\n%s", out)
	}
	n := number(r, out, `(\d+) requests in`)
	if n < 100 {
		r.Errorf("wrk made only %v requests:\n%s", n, out)
	}
	r.Logf("wrk %s: %v requests in 2 s", url, n)
}

// ab makes a number of requests and demands that all of them succeed.
func ab(r *rig.Rig, url string, requests int, flags ...any) {
	r.Helper()
	args := append([]any{"ab", "-q", "-c", 16, "-n", requests}, flags...)
	out := r.Command(append(args, url)...).Output()
	if n := number(r, out, `Complete requests:\s+(\d+)`); n != float64(requests) {
		r.Errorf("ab completed %v of %d requests:\n%s", n, requests, out)
	}
	if n := number(r, out, `Failed requests:\s+(\d+)`); n != 0 || strings.Contains(out, "Non-2xx") {
		r.Errorf("ab met %v failures:\n%s", n, out)
	}
}

// fetch gets the URL with curl and compares the body's checksum.
func fetch(r *rig.Rig, url, sum string, flags ...any) {
	r.Helper()
	to := r.Path("fetched")
	args := append([]any{"curl", "-sS", "--fail", "-o", to}, flags...)
	c := r.Command(append(args, url)...)
	c.Output()
	if got := r.Sum(to); got != sum {
		r.Errorf("%s: checksum %s, want %s", url, got, sum)
	}
}
