package journal

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestPriorities(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(New(&out, slog.LevelDebug, true)).With("session", 3)
	log.Debug("d")
	log.Info("i", "error", "two\nlines")
	log.WithGroup("g").Warn("w", "time", 5)
	log.Error("e")
	want := `<7>level=DEBUG msg=d session=3
<6>level=INFO msg=i session=3 error="two\nlines"
<4>level=WARN msg=w session=3 g.time=5
<3>level=ERROR msg=e session=3
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
}

func TestElsewhere(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	log := slog.New(New(&out, level, false))
	log.Debug("d")
	log.Info("i")
	if s := out.String(); !strings.HasPrefix(s, "time=") || strings.Count(s, "\n") != 1 {
		t.Error(s)
	}
	level.Set(slog.LevelDebug)
	log.Debug("d")
	if s := out.String(); !strings.Contains(s, "level=DEBUG msg=d\n") {
		t.Error(s)
	}
	if Of(log) == nil || Of(slog.New(slog.DiscardHandler)) != nil {
		t.Error("Of does not tell a Journal from another handler")
	}
}

// locked is a buffer that a timer's goroutine may write while it is read.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRepeated floods the log with one warning, with lines of information and
// another warning in between.
func TestRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out locked
		j := New(&out, slog.LevelInfo, false)
		log := slog.New(j)
		for i := range 100 {
			log.With("n", i).Warn("again")
			log.Info("one each")
		}
		log.Warn("other")
		count := func(s string) int { return strings.Count(out.String(), s) }
		if count("msg=again") != Burst || count("msg=\"one each\"") != 100 || count("msg=other") != 1 {
			t.Errorf("%d times again, %d one each, %d other", count("msg=again"), count("one each"), count("other"))
		}
		time.Sleep(Window + time.Millisecond)
		synctest.Wait()
		if want := fmt.Sprintf("msg=again times_more=%d within=10s", 100-Burst); count(want) != 1 || count("times_more") != 1 {
			t.Errorf("no %q in %s", want, out.String())
		}
		log.Warn("again")
		if count("msg=again") != Burst+2 {
			t.Error("a new window does not begin")
		}
		if w, e := j.Count(); w != 102 || e != 0 {
			t.Errorf("%d warnings, %d errors", w, e)
		}
		time.Sleep(Window + time.Millisecond)
		synctest.Wait()
	})
}

func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := New(&bytes.Buffer{}, slog.LevelInfo, true)
		log := slog.New(j)
		for i := range Kept + 7 {
			log.Error(fmt.Sprint("number ", i), "x", 1)
		}
		log.Info("nothing")
		all := j.Recent()
		if len(all) != Kept || all[0].Level != "error" || all[0].Text != fmt.Sprintf(`"number %d" x=1`, Kept+6) {
			t.Errorf("%d, %+v", len(all), all[0])
		}
		time.Sleep(Window + time.Millisecond)
		synctest.Wait()
	})
}

func TestIsJournal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if !IsJournal(f, fmt.Sprintf("%d:%d", st.Dev, st.Ino)) {
		t.Error("not known")
	}
	for _, other := range []string{"", "1:2", fmt.Sprintf("%d:%d", st.Dev, st.Ino+1)} {
		if IsJournal(f, other) {
			t.Errorf("%q taken for it", other)
		}
	}
}
