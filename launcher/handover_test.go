package launcher

import (
	"strings"
	"testing"

	"github.com/poemq/poemq/launcher/filter"
	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (int, int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
	return p[0], p[1]
}

func TestHandoverAnswers(t *testing.T) {
	for _, c := range []struct {
		answer string
		want   string // a word of the error, or empty
	}{
		{"{\"poemq\":1,\"ok\":true}\n", ""},
		{"{\"poemq\":1,\"ok\":true,\"more\":[]}\nrest", ""},
		{"{\"poemq\":1,\"error\":\"too many\"}\n", "refused: too many"},
		{"{\"poemq\":1,\"ok\":true}", "went away"},
		{"", "went away"},
		{"\n", "does not understand"},
		{"null\n", "does not understand"},
		{strings.Repeat("x", 70<<10) + "\n", "no end"},
	} {
		ours, theirs := pair(t)
		if _, err := unix.Write(theirs, []byte(c.answer)); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(theirs, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		err := handover(ours, theirs, []byte("{}"))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %q", c.answer, err, c.want)
		}
	}
}

func TestSilentBroker(t *testing.T) {
	ours, theirs := pair(t)
	tv := unix.Timeval{Usec: 20_000}
	if err := unix.SetsockoptTimeval(ours, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
		t.Fatal(err)
	}
	if err := handover(ours, theirs, []byte("{}")); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Error(err)
	}
}

// A message of more than the socket holds arrives whole, with one descriptor.
func TestHandoverOfManyMatches(t *testing.T) {
	var matches []filter.Match
	for i := range uint32(60_000) {
		matches = append(matches, filter.Match{Domain: 2, Type: 1, Proto: i})
	}
	message, err := state(1, QuicPrefer, matches, "cmd")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := pair(t)
	done := make(chan int)
	go func() {
		total, rights := 0, 0
		buf, oob := make([]byte, 4096), make([]byte, 256)
		for total < len(message) {
			n, oobn, _, _, err := unix.Recvmsg(theirs, buf, oob, unix.MSG_CMSG_CLOEXEC)
			if err != nil || n == 0 {
				break
			}
			total += n
			if oobn > 0 {
				rights++
			}
		}
		_, _ = unix.Write(theirs, []byte("{\"poemq\":1,\"ok\":true}\n"))
		done <- total*10 + rights
	}()
	if err := handover(ours, ours, message); err != nil {
		t.Error(err)
	}
	if got, want := <-done, len(message)*10+1; got != want {
		t.Errorf("%d bytes and %d descriptors arrived of %d and 1", got/10, got%10, len(message))
	}
}

func TestInheritedText(t *testing.T) {
	for _, in := range []inherited{{}, {1 << 63, 0x1000, ^uint64(0), 7, 11}, recorded()} {
		if got, err := parseInherited(in.String()); got != in || err != nil {
			t.Errorf("%v becomes %v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "1:2", "1:2:3:4:5:6", "1:2:3:4:x", "0:0:0:0:ffffffffffff"} {
		if got, err := parseInherited(bad); err == nil {
			t.Errorf("%q is taken as %v", bad, got)
		}
	}
}

func TestLoadErrorsInWords(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EBUSY: "already has a seccomp listener", unix.ENOSYS: "Linux 5.14", unix.EINVAL: "Linux 5.14",
		unix.EPERM: "profile", unix.ENOMEM: "too many filters",
	} {
		if got := loadError(errno).Error(); !strings.Contains(got, want) {
			t.Errorf("%v: %q", errno, got)
		}
	}
}
