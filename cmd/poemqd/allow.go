package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/poemq/poemq/broker"
)

// members lets root, our own user and the group of the socket file in: what its
// mode says, which somebody may have changed or passed a connection around.
func members(socket string) func(broker.Peer) error {
	own := uint32(os.Geteuid())
	return func(p broker.Peer) error {
		if p.UID == 0 || p.UID == own {
			return nil
		}
		st, err := os.Stat(socket)
		if err != nil {
			return fmt.Errorf("who may use it cannot be told: %w", err)
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok && p.In(sys.Gid) {
			return nil
		}
		return fmt.Errorf("user %d is not in the group of %s", p.UID, socket)
	}
}
