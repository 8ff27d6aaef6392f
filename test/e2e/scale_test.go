package e2e

import (
	"testing"
	"time"
)

// TestManyConnections opens 1,000 connections at once and keeps them, then
// opens and closes 10,000 in sequence; both brokers return to where they were.
func TestManyConnections(t *testing.T) {
	l := loopback(t)
	l.client = newHost(t) // two brokers, as between two hosts
	var brokers []*broker
	if !native {
		brokers = []*broker{startBroker(t, l.client), startBroker(t, l.server)}
	}
	port := freePort(t)
	addr := hostPort(l.server.v4, port)
	l.server.serve(t, port, input{}, program("gopeer"), "listen", addr, "banner")
	churn := func(n string, limit time.Duration) {
		t.Helper()
		c := l.client.start(t, input{}, program("gopeer"), "connect", addr, "churn", n)
		c.succeed(t, limit)
		c.says(t, time.Second, "churned "+n)
	}

	hold := func(n string) {
		t.Helper()
		c := l.client.start(t, input{pipe: true}, program("gopeer"), "connect", addr, "hold", n)
		c.says(t, time.Minute, "held "+n)
		for _, b := range brokers {
			t.Logf("with %s connections: %v", n, b.usage(t))
		}
		c.stdin.Close()
		c.succeed(t, 30*time.Second)
	}

	// What is there once and stays (the pooled connections, the runtime's own)
	// is there before the counting.
	hold("300")
	churn("100", 30*time.Second)
	before := make([]usage, len(brokers))
	for i, b := range brokers {
		before[i] = b.usage(t)
	}
	t.Run("1000 kept", func(t *testing.T) {
		hold("1000")
		for i, b := range brokers {
			b.returnsTo(t, before[i])
		}
	})
	t.Run("10000 in sequence", func(t *testing.T) {
		start := time.Now()
		churn("10000", 2*time.Minute)
		t.Logf("%.0f connections a second", 10000/time.Since(start).Seconds())
		for i, b := range brokers {
			b.returnsTo(t, before[i])
		}
	})
}
