package rig

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The watch must count both families and both directions, and nothing of
// another protocol or port: a blind watch would pass every test.
func TestCounterCountsOnlyItsProtocolAndPort(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			server, err := net.ListenPacket("udp", net.JoinHostPort(host, "0"))
			if err != nil {
				t.Skipf("no %s here: %v", host, err)
			}
			defer server.Close()
			port := server.LocalAddr().(*net.UDPAddr).Port

			counters := make(map[string]*counter)
			for name, key := range map[string][2]int{
				"udp":   {unix.IPPROTO_UDP, port},
				"tcp":   {unix.IPPROTO_TCP, port},
				"other": {unix.IPPROTO_UDP, port ^ 1},
			} {
				c, err := newCounter(uint32(key[0]), key[1])
				if errors.Is(err, unix.EPERM) {
					t.Skip("needs CAP_NET_RAW")
				}
				if err != nil {
					t.Fatal(err)
				}
				defer c.close()
				counters[name] = c
			}

			client, err := net.Dial("udp", server.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			fmt.Fprint(client, "ping")
			buf := make([]byte, 16)
			_, from, err := server.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := server.WriteTo(buf[:4], from); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(buf); err != nil {
				t.Fatal(err)
			}
			if got := counters["udp"].read(); got != 2 {
				t.Errorf("%d UDP datagrams counted, 2 sent", got)
			}
			if got := counters["tcp"].read(); got != 0 {
				t.Errorf("%d TCP segments counted, none sent", got)
			}

			if c, err := net.DialTimeout("tcp", server.LocalAddr().String(), time.Second); err == nil {
				c.Close()
			}
			if got := counters["tcp"].read(); got < 2 {
				t.Errorf("%d TCP segments counted, SYN and RST were sent", got)
			}
			if got := counters["other"].read(); got != 0 {
				t.Errorf("%d datagrams of another port counted", got)
			}
		})
	}
}
