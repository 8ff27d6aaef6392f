// Package journal writes the broker's log: one line for each thing, as text, to
// standard error or wherever it is told.
//
// Under systemd, where standard error is the journal, each line begins with its
// priority (sd-daemon(3)) and has no time of its own. Warnings and errors that
// repeat are written Burst times in Window, and then counted: at the end of the
// window one line tells how many were left out. The last of them are kept for
// the status page.
package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// Burst lines of one message are written in a Window.
	Burst = 20
	// Window begins with the first of them.
	Window = 10 * time.Second
	// Kept is how many warnings and errors Recent tells.
	Kept = 50
)

// Entry is a warning or an error.
type Entry struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"` // "warn" or "error"
	Text  string    `json:"text"`  // message and attributes
}

// Journal is a slog.Handler. Those made of it by WithAttrs and WithGroup share
// everything with it.
type Journal struct {
	*shared
	text slog.Handler // writes into shared.line
}

type shared struct {
	out      io.Writer
	priority bool // lines begin with <N>
	level    slog.Leveler
	plain    slog.Handler // without attributes of anybody's

	mu     sync.Mutex // guards what follows, and orders the lines
	line   bytes.Buffer
	recent []Entry // the oldest first
	count  map[slog.Level]uint64
	often  map[string]*repeated // by level and message
}

// repeated is a message within its window.
type repeated struct {
	written int
	more    int // that were not
}

// New makes a Journal that writes to out. priority is for systemd's journal; see
// IsJournal.
func New(out io.Writer, level slog.Leveler, priority bool) *Journal {
	j := &Journal{shared: &shared{
		out: out, priority: priority, level: level, count: map[slog.Level]uint64{}, often: map[string]*repeated{},
	}}
	o := slog.HandlerOptions{Level: slog.LevelDebug}
	if priority {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		}
	}
	j.plain = slog.NewTextHandler(&j.line, &o)
	j.text = j.plain
	return j
}

// Of is the Journal that a logger writes to; nil if it writes elsewhere.
func Of(log *slog.Logger) *Journal {
	j, _ := log.Handler().(*Journal)
	return j
}

// IsJournal reports that f is the journal's, as systemd says in JOURNAL_STREAM
// (systemd.exec(5)).
func IsJournal(f *os.File, stream string) bool {
	st, err := f.Stat()
	if err != nil || stream == "" {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && stream == fmt.Sprintf("%d:%d", sys.Dev, sys.Ino)
}

// Enabled: see slog.Handler.
func (j *Journal) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level.Level() }

// WithAttrs: see slog.Handler.
func (j *Journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Journal{j.shared, j.text.WithAttrs(attrs)}
}

// WithGroup: see slog.Handler.
func (j *Journal) WithGroup(name string) slog.Handler {
	return &Journal{j.shared, j.text.WithGroup(name)}
}

// Handle writes r, or counts it.
func (j *Journal) Handle(ctx context.Context, r slog.Record) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if r.Level < slog.LevelWarn {
		return j.write(ctx, j.text, r)
	}
	j.count[r.Level]++
	key := r.Level.String() + r.Message
	rep := j.often[key]
	if rep == nil {
		rep = new(repeated)
		j.often[key] = rep
		time.AfterFunc(Window, func() { j.over(key, r) })
	}
	if rep.written >= Burst {
		rep.more++
		return nil
	}
	rep.written++
	return j.write(ctx, j.text, r)
}

// over is the end of the window that began with first.
func (j *Journal) over(key string, first slog.Record) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rep := j.often[key]
	delete(j.often, key)
	if rep.more == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), first.Level, first.Message, 0)
	r.AddAttrs(slog.Int("times_more", rep.more), slog.Duration("within", Window))
	_ = j.write(context.Background(), j.plain, r) // as for any line, there is nobody to tell
}

// write is for those who hold mu.
func (j *Journal) write(ctx context.Context, text slog.Handler, r slog.Record) error {
	j.line.Reset()
	if j.priority {
		fmt.Fprintf(&j.line, "<%d>", priorityOf(r.Level))
	}
	if err := text.Handle(ctx, r); err != nil {
		return err
	}
	if r.Level >= slog.LevelWarn {
		j.keep(r)
	}
	_, err := j.out.Write(j.line.Bytes())
	return err
}

// keep notes what is in line; mu is held.
func (j *Journal) keep(r slog.Record) {
	text := j.line.Bytes()
	if i := bytes.Index(text, []byte("msg=")); i >= 0 {
		text = text[i+len("msg="):]
	}
	e := Entry{Time: r.Time, Level: "warn", Text: string(bytes.TrimSpace(text))}
	if r.Level >= slog.LevelError {
		e.Level = "error"
	}
	if len(j.recent) == Kept {
		j.recent = slices.Delete(j.recent, 0, 1)
	}
	j.recent = append(j.recent, e)
}

// priorityOf is syslog(3)'s.
func priorityOf(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

// Recent are the last warnings and errors, the newest first.
func (j *Journal) Recent() []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := slices.Clone(j.recent)
	slices.Reverse(all)
	return all
}

// Count is how many warnings and errors there were, those too that were only
// counted.
func (j *Journal) Count() (warnings, errors uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for l, n := range j.count {
		if l >= slog.LevelError {
			errors += n
		} else {
			warnings += n
		}
	}
	return warnings, errors
}
