package apps

import (
	"os"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// memcached's main thread accepts and hands connections to four workers.
func TestMemcached(t *testing.T) {
	r := rig.New(t, "memcached", "python3")
	port := r.Port()
	args := []any{"memcached", "-l", "127.0.0.1", "-p", port, "-U", 0, "-t", 4}
	if os.Geteuid() == 0 {
		args = append(args, "-u", "nobody") // it refuses to stay root
	}
	server := r.Command(args...).Start()
	server.Listens(port)
	out := r.Command("python3", testdata("memcached.py"), port).Output()
	if want := "1000 keys stored, 1000 keys right, curr_items 1000\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}
