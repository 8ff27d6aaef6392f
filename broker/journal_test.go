package broker

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/poemq/poemq/broker/policy"
	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// reopen is what the next broker finds.
func reopen(t *testing.T, j *journal) (*journal, journalHead) {
	t.Helper()
	fd, err := unix.Dup(j.fd)
	if err != nil {
		t.Fatal(err)
	}
	next, h, err := openJournal(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.close)
	return next, h
}

func TestJournal(t *testing.T) {
	head := journalHead{Name: "nginx", Asked: "prefer", Match: [][3]int{{2, 1, 261}}, SeesSetns: true, UID: 33}
	j, err := newJournal(head)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.close)
	var slots []int32
	for i := range 5 {
		slot, _ := j.take()
		j.put(slot, []byte{byte(i)})
		slots = append(slots, slot)
	}
	j.put(slots[1], []byte("changed"))
	j.put(slots[1], []byte("and again"))
	j.release(slots[2])
	j.putCall(0, notify.Caught{ID: 11, TID: 1})
	j.putCall(7, notify.Caught{ID: 12, TID: 2})
	j.putCall(0, notify.Caught{ID: 13, TID: 3})

	next, h := reopen(t, j)
	head.Version = journalVersion
	if diff := cmp.Diff(head, h); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]notify.Caught{{ID: 13, TID: 3}, {ID: 12, TID: 2}}, next.calls()); diff != "" {
		t.Error(diff)
	}
	got := make(map[int32]string)
	next.records(func(slot int32, b []byte) { got[slot] = string(b) })
	want := map[int32]string{slots[0]: "\x00", slots[1]: "and again", slots[3]: "\x03", slots[4]: "\x04"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if slot, _ := next.take(); slot != slots[2] {
		t.Errorf("slot %d is given, %d is free", slot, slots[2])
	}
	if slot, _ := next.take(); slot != 5 {
		t.Errorf("slot %d is given, 5 was never used", slot)
	}
	next.forgetCalls()
	if calls := next.calls(); len(calls) != 0 {
		t.Errorf("forgotten calls: %v", calls)
	}
}

func TestJournalOfAnotherVersion(t *testing.T) {
	fd, err := unix.MemfdCreate("short", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(fd); err == nil {
		t.Error("a journal without anything in it was taken")
	}
	j, err := newJournal(journalHead{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.close)
	copy(j.mem[4:], bytes.Replace(j.mem[4:100], []byte(`"version":1`), []byte(`"version":9`), 1))
	fd, err = unix.Dup(j.fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := openJournal(fd); err == nil {
		t.Error("a journal of version 9 was taken")
	}
}

func TestRecord(t *testing.T) {
	r := record{
		cookie: 1 << 60, ino: 2, ns: 3, hold: 4, uid: 1000, domain: unix.AF_INET6, proto: unix.IPPROTO_MPTCP, tid: 77, fd: 5, state: listening,
		accepted: true, chosen: true, zeroRTT: true, mode: policy.Require, backlog: -1, soError: unix.ECONNREFUSED,
		local: netip.MustParseAddrPort("[fe80::1%eth0]:443"), remote: netip.MustParseAddrPort("192.0.2.1:1"),
		opts: []option{{unix.SOL_SOCKET, unix.SO_KEEPALIVE, []byte{1, 0, 0, 0}}, {unix.IPPROTO_TCP, unix.TCP_CONGESTION, []byte("cubic")}},
	}
	b := r.append(nil)
	got, err := readRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got, cmp.AllowUnexported(record{}, option{}), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	for n := range len(b) {
		if _, err := readRecord(b[:n]); err == nil && n < len(b)-2*optionHead-9 {
			t.Errorf("%d octets of %d are a whole record", n, len(b))
		}
	}
	r.opts = append(r.opts, option{unix.IPPROTO_IP, unix.IP_OPTIONS, make([]byte, halfSize)})
	if again := r.append(nil); len(again) != len(b) {
		t.Errorf("an option for which there is no room takes %d octets", len(again)-len(b))
	}
}

func FuzzRecord(f *testing.F) {
	f.Add((&record{local: netip.MustParseAddrPort("127.0.0.1:1")}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := readRecord(b)
		if err != nil {
			return
		}
		if _, err := readRecord(r.append(nil)); err != nil {
			t.Errorf("what was read cannot be read again: %v", err)
		}
	})
}

// BenchmarkJournal is what a socket call costs more where sessions are kept: the
// call is noted, and the socket's record written anew.
func BenchmarkJournal(b *testing.B) {
	j, err := newJournal(journalHead{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.close()
	slot, _ := j.take()
	r := record{
		local: netip.MustParseAddrPort("127.0.0.1:1"), remote: netip.MustParseAddrPort("127.0.0.1:2"),
		opts: []option{{unix.IPPROTO_TCP, unix.TCP_NODELAY, []byte{1, 0, 0, 0}}},
	}
	var buf [halfSize]byte
	for i := range uint64(b.N) {
		j.putCall(0, notify.Caught{ID: i, TID: 1})
		j.put(slot, r.append(buf[:0]))
	}
}
