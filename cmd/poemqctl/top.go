package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/poemq/poemq/broker/api"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// sortKeys are what top sorts by, each with the letter that chooses it.
var sortKeys = []struct {
	letter byte
	name   string
	less   func(a, b *moving) int
}{
	{'r', "rate", func(a, b *moving) int { return cmp.Compare(b.SendRate+b.ReceiveRate, a.SendRate+a.ReceiveRate) }},
	{'b', "bytes", func(a, b *moving) int { return cmp.Compare(b.Sent+b.Received, a.Sent+a.Received) }},
	{'t', "rtt", func(a, b *moving) int { return cmp.Compare(b.RTT, a.RTT) }},
	{'l', "lost", func(a, b *moving) int { return cmp.Compare(b.Lost, a.Lost) }},
	{'a', "age", func(a, b *moving) int { return cmp.Compare(b.Age, a.Age) }},
	{'p', "program", func(a, b *moving) int { return cmp.Compare(a.Program, b.Program) }},
}

// moving is a socket with what it carries now.
type moving struct {
	api.Socket
	SendRate    float64 `json:"sent_bytes_per_second"`
	ReceiveRate float64 `json:"received_bytes_per_second"`
}

func topCommand(o *options) *cobra.Command {
	var sorted string
	var every time.Duration
	var times int
	var names []string
	for _, k := range sortKeys {
		names = append(names, k.name)
	}
	c := &cobra.Command{
		Use: "top", Short: "Watch connections live: throughput, RTT and loss",
		Long: "Watch connections live. Keys: " + strings.Join(names, ", ") + " by their first letters (t for rtt)\n" +
			"choose the order, i turns it round, q ends. Without a terminal, or with --json, a table\n" +
			"or a line of JSON is printed each time.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			by := slices.Index(names, sorted)
			if by < 0 {
				return fmt.Errorf("--sort %s is none of %s", sorted, strings.Join(names, ", "))
			}
			if every < 100*time.Millisecond {
				return fmt.Errorf("--interval %v is shorter than 100ms", every)
			}
			client := o.client()
			defer client.Close()
			t := &top{client: client, json: o.json, by: by, every: every, times: times, out: c.OutOrStdout()}
			return t.run(c.Context(), os.Stdin)
		},
	}
	c.Flags().StringVar(&sorted, "sort", "rate", strings.Join(names, ", "))
	c.Flags().DurationVar(&every, "interval", time.Second, "how often to look")
	c.Flags().IntVarP(&times, "count", "n", 0, "end after so many times; 0: never")
	return c
}

// top is the state of poemqctl top.
type top struct {
	client *api.Client
	json   bool
	every  time.Duration
	times  int
	out    io.Writer

	by      int // index of sortKeys
	reverse bool

	seen   map[uint64]api.Socket // at the last look
	seenAt time.Time
	rows   []moving
	all    int   // sockets
	err    error // of the last look
}

// run looks and draws until ctx ends, q is pressed or it was done often enough.
func (t *top) run(ctx context.Context, in *os.File) error {
	live := !t.json && term.IsTerminal(int(in.Fd())) && isTerminal(t.out)
	keys := make(chan byte)
	if live {
		old, err := term.MakeRaw(int(in.Fd()))
		if err != nil {
			return err
		}
		fmt.Fprint(t.out, "\x1b[?1049h\x1b[?25l") // another screen, no cursor
		defer func() {
			fmt.Fprint(t.out, "\x1b[?25h\x1b[?1049l")
			_ = term.Restore(int(in.Fd()), old)
		}()
		go readKeys(in, keys) // ends with the process: a read of a terminal cannot be ended
	}
	ticker := time.NewTicker(t.every)
	defer ticker.Stop()
	for n := 1; ; n++ {
		if err := t.look(ctx); err != nil && !live {
			return err
		}
		if err := t.draw(live); err != nil {
			return err
		}
		if n == t.times {
			return nil
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-ticker.C:
				waiting = false
			case k := <-keys:
				if t.key(k) {
					return nil
				}
				if err := t.draw(live); err != nil {
					return err
				}
			}
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func readKeys(in io.Reader, keys chan<- byte) {
	var b [1]byte
	for {
		if n, err := in.Read(b[:]); n == 1 {
			keys <- b[0]
		} else if err != nil {
			return
		}
	}
}

// key obeys a key, and reports that it ends everything.
func (t *top) key(k byte) (over bool) {
	switch k {
	case 'q', 'Q', 3, 4: // in raw mode Ctrl-C and Ctrl-D are keys
		return true
	case 'i':
		t.reverse = !t.reverse
	}
	for i := range sortKeys {
		if sortKeys[i].letter == k {
			t.by = i
		}
	}
	t.sort()
	return false
}

// look asks the broker. What is shown stays when it cannot be asked.
func (t *top) look(ctx context.Context) error {
	a, err := api.Get[api.Sockets](ctx, t.client, "/v1/sockets")
	if t.err = err; err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	t.take(a.Sockets, time.Now())
	return nil
}

// take makes rows of sockets as of now.
func (t *top) take(sockets []api.Socket, now time.Time) {
	past := now.Sub(t.seenAt).Seconds()
	before := t.seen
	t.seen, t.seenAt, t.rows, t.all = make(map[uint64]api.Socket, len(sockets)), now, t.rows[:0], len(sockets)
	for _, s := range sockets {
		t.seen[s.ID] = s
		if s.State != "connected" {
			continue
		}
		m := moving{Socket: s}
		if old, ok := before[s.ID]; ok && past > 0 && s.Sent >= old.Sent && s.Received >= old.Received {
			m.SendRate, m.ReceiveRate = float64(s.Sent-old.Sent)/past, float64(s.Received-old.Received)/past
		}
		t.rows = append(t.rows, m)
	}
	t.sort()
}

func (t *top) sort() {
	less := sortKeys[t.by].less
	slices.SortStableFunc(t.rows, func(a, b moving) int {
		c := less(&a, &b)
		if t.reverse {
			c = -c
		}
		if c == 0 {
			c = cmp.Compare(a.ID, b.ID)
		}
		return c
	})
}

func (t *top) draw(live bool) error {
	if t.json {
		return printJSON(t.out, struct {
			Time    time.Time `json:"time"`
			Sockets []moving  `json:"sockets"`
		}{t.seenAt, append([]moving{}, t.rows...)})
	}
	size := unix.Winsize{}
	if live {
		size = terminalSize(t.out, unix.Winsize{Col: 80, Row: 24})
	}
	text := t.text(int(size.Row), int(size.Col))
	if live {
		text = "\x1b[H" + strings.ReplaceAll(text, "\n", "\x1b[K\r\n") + "\x1b[J"
	}
	_, err := io.WriteString(t.out, text)
	return err
}

// text is the picture, of rows by columns; 0: as large as need be.
func (t *top) text(rows, columns int) string {
	var send, receive float64
	quic := 0
	for i := range t.rows {
		send, receive = send+t.rows[i].SendRate, receive+t.rows[i].ReceiveRate
		if t.rows[i].Via == "quic" {
			quic++
		}
	}
	order := sortKeys[t.by].name
	if t.reverse {
		order += ", turned round"
	}
	head := []string{
		fmt.Sprintf("poemq  sockets %d  connections %d (QUIC %d, TCP %d)  sending %s  receiving %s  by %s",
			t.all, len(t.rows), quic, len(t.rows)-quic, rate(send), rate(receive), order),
	}
	if t.err != nil {
		head = append(head, "! "+t.err.Error())
	}
	head = append(head, "")
	shown := t.rows
	if rows > 0 {
		shown = shown[:min(len(shown), max(0, rows-len(head)-2))]
	}
	lines := [][]string{}
	for i := range shown {
		s := &shown[i]
		lines = append(lines, []string{
			s.Program, number(s.PID), s.Via, address(s.Local), address(s.Remote), rate(s.SendRate), rate(s.ReceiveRate),
			millis(s.RTT), octets(s.CWnd), fmt.Sprint(s.Lost), octets(s.Sent), octets(s.Received), age(s.Age),
		})
	}
	var b strings.Builder
	_ = table(&b, "PROGRAM PID VIA LOCAL REMOTE SENDING RECEIVING RTT CWND LOST SENT RECEIVED AGE", lines) // into memory
	all := append(head, strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")...)
	for i, line := range all {
		if r := []rune(line); columns > 0 && len(r) > columns {
			all[i] = string(r[:columns])
		}
	}
	return strings.Join(all, "\n") + "\n"
}
