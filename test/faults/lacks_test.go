package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
	"golang.org/x/sys/unix"
)

// TestNoDescriptorsLeft: a broker at its limit refuses, and neither ends nor
// breaks what it carries.
func TestNoDescriptorsLeft(t *testing.T) {
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	r := rig.New(t, "python3")
	h := &host{Rig: r, store: r.NewStore("kept")}
	h.store.Nofile = 150
	h.start()
	_, port := h.server("epoll")
	c := h.client()
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	got := c.do("many m %d 120", port)
	came, errors, _ := strings.Cut(got, " ")
	if n, err := strconv.Atoi(came); err != nil || n == 120 {
		t.Errorf("the limit of descriptors was not met: %s", got)
	}
	t.Logf("of 120 connections came about %s; errors: %s", came, errors)
	if strings.Contains(errors, "ENOSYS") || strings.Contains(errors, "timeout") {
		t.Errorf("at the limit a connect says %s", errors)
	}
	c.must("still", "echo s still")
	c.must("ok", "drop m")
	h.Eventually(soon, "a connection comes about again", func() bool {
		return c.do("many m %d 1", port) == "1 -"
	})
	c.must("still", "echo s still")
}

// TestNoMemoryLeft: a broker that the kernel kills for its memory is succeeded
// by one that goes on.
func TestNoMemoryLeft(t *testing.T) {
	h := newHost(t, "python3")
	_, port := h.server("epoll")
	c := h.client()
	c.must("ok", "socket fresh")
	limit(t, h.broker.Pid(), 4<<20)
	// What is under way when memory is at its end gets an error, or is made
	// again under the next broker.
	c.tell("many m %d 200", port)
	h.broker.Wait(time.Minute)
	h.start()
	t.Logf("while memory ended: %s connections", c.heard())
	c.must("ok", "drop m")
	c.must("ok", "connect fresh %d", port)
	c.must("hello", "echo fresh hello")
}

// limit puts a process into a group of its own with that many octets of memory.
func limit(t *testing.T, pid, octets int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to limit memory")
	}
	name := fmt.Sprintf("poemq-faults-%d", os.Getpid())
	for _, try := range []struct{ root, file, swap string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
	} {
		if try.file == "memory.max" {
			_ = os.WriteFile(filepath.Join(try.root, "cgroup.subtree_control"), []byte("+memory"), 0)
		}
		dir := filepath.Join(try.root, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			end := time.Now().Add(soon)
			for os.Remove(dir) != nil && time.Now().Before(end) {
				time.Sleep(10 * time.Millisecond) // until its last process is gone
			}
		})
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0) != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, try.file), []byte(strconv.Itoa(octets)), 0) != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, try.swap), []byte("0"), 0) // where there is none, it cannot be limited
		return
	}
	t.Skip("no memory can be limited here")
}

// TestStateDirectoryFull: with a full or read-only state directory a broker
// that has its key goes on, and says what it cannot remember.
func TestStateDirectoryFull(t *testing.T) {
	for _, how := range []string{"full", "read-only"} {
		t.Run(how, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("needs root, to mount")
			}
			if rig.Native() {
				t.Skip("there is no broker in a native run")
			}
			r := rig.New(t, "python3")
			h := &host{Rig: r, store: r.NewStore("kept")}
			state := r.Mkdir("broker-kept/state", "")
			if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=128k"); err != nil {
				t.Skipf("no tmpfs can be mounted: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
			h.start()
			if how == "full" {
				fill(t, filepath.Join(state, "filler"))
			} else if err := unix.Mount("", state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			_, port := h.server("epoll")
			c := h.client()
			for _, name := range []string{"a", "b"} {
				c.must("ok", "socket %s", name)
				c.must("ok", "connect %s %d", name, port)
				c.must("hello", "echo %s hello", name)
				h.kill()
				if got := c.do("recv %s", name); got != "ECONNRESET" {
					t.Errorf("after the restart: %s", got)
				}
			}
			if !strings.Contains(h.broker.Stderr(), "poemqd serves") {
				t.Error("the next broker does not serve")
			}
		})
	}
}

// fill writes until there is no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			if e, ok := err.(*os.PathError); !ok || e.Err != syscall.ENOSPC {
				t.Fatal(err)
			}
			return
		}
	}
}

// TestSocketPathReplaced: a broker whose socket's path is taken by another one
// goes on with its sessions, and leaves the path alone when it ends.
func TestSocketPathReplaced(t *testing.T) {
	if rig.Native() {
		t.Skip("there is no broker in a native run")
	}
	r := rig.New(t, "python3")
	first := r.StartBroker("first")
	h := &host{Rig: r, broker: first}
	_, port := h.server("epoll")
	c := h.client()
	path := filepath.Join(first.Dir(), "broker.sock")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	control := filepath.Join(first.Dir(), "second.sock")
	second := r.Command(filepath.Join(rig.BinDir(), "poemqd"), "serve", "--socket", path, "--control", control, "--state-dir", r.Mkdir("second", ""))
	second.Outside = true
	p := second.Start()
	p.Says("poemqd serves")
	c.must("ok", "socket s")
	c.must("ok", "connect s %d", port)
	c.must("hello", "echo s hello")
	first.Stop()
	other := h.client() // of the second
	other.must("ok", "socket s")
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the first broker took the second one's socket along: %v", err)
	}
}
