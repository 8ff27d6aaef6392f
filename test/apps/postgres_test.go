package apps

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

// PostgreSQL forks a backend for each connection and refuses to run as root.
func TestPostgres(t *testing.T) {
	r := rig.New(t, "initdb", "postgres", "psql", "pgbench")
	user := rig.Owner("postgres")
	if user == "" {
		r.Log("not root: the server runs as the test's user")
	}
	port := r.Port()
	data := r.Mkdir("data", user)
	password := r.Write("password", "so much depends\n")

	initdb := r.Command("initdb", "-D", data, "-U", "poet", "--auth=scram-sha-256", "--pwfile", password, "--no-sync", "--no-locale", "-E", "UTF8")
	initdb.User, initdb.Outside = user, true
	initdb.Output()
	postgres := r.Command("postgres", "-D", data, "-p", port, "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=40")
	postgres.User = user
	server := postgres.Start()
	server.Says("database system is ready to accept connections")

	env := []string{"PGPASSWORD=so much depends", "PGHOST=127.0.0.1", fmt.Sprint("PGPORT=", port), "PGUSER=poet", "PGDATABASE=postgres"}
	client := func(args ...any) *rig.Cmd {
		c := r.Command(args...)
		c.Env = env
		return c
	}
	psql := func(sql string) string {
		t.Helper()
		return strings.TrimSpace(client("psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-c", sql).Output())
	}

	// 100,000 rows out by COPY and in again must have the same checksum.
	psql(`create table a as select i, md5(i::text) as word from generate_series(1, 100000) i;
	      create table b (like a)`)
	rows := client("psql", "-X", "-c", "copy a to stdout").Output()
	back := client("psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", "copy b from stdin")
	back.Stdin = strings.NewReader(rows)
	back.Output()
	const checksum = "select count(*) || ' ' || md5(string_agg(word, ',' order by i)) from "
	if a, b := psql(checksum+"a"), psql(checksum+"b"); a != b || !strings.HasPrefix(a, "100000 ") {
		t.Errorf("table copied out and in: %s, was %s", b, a)
	}
	if got := psql("select repeat('poem', 1000000)"); got != strings.Repeat("poem", 1000000) {
		t.Errorf("a value of 4,000,000 bytes arrived with %d", len(got))
	}
	names := psql("select host(inet_client_addr()), inet_client_port() > 0, host(inet_server_addr()), inet_server_port()")
	if want := fmt.Sprintf("127.0.0.1|t|127.0.0.1|%d", port); names != want {
		t.Errorf("names of the connection: %s, want %s", names, want)
	}

	client("pgbench", "-i", "-q", "-s", 1).Output()
	out := client("pgbench", "-n", "-c", 4, "-j", 2, "-T", 3).Output()
	if n := number(r, out, `number of transactions actually processed: (\d+)`); n < 50 {
		t.Errorf("pgbench: %v transactions in 3 s", n)
	}
	if n := number(r, out, `number of failed transactions: (\d+)`); n != 0 {
		t.Errorf("pgbench: %v failed transactions", n)
	}
	// -C makes a connection, and so the server a fork, per transaction.
	out = client("pgbench", "-n", "-C", "-S", "-c", 2, "-t", 20).Output()
	if n := number(r, out, `number of transactions actually processed: (\d+)`); n != 40 {
		t.Errorf("pgbench -C: %v of 40 transactions", n)
	}
	if got := psql("select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"); got != "t" {
		t.Errorf("pgbench's books do not balance: %s", got)
	}

	// Cancelling needs a second connection while the first is busy.
	slow := client("psql", "-X", "-c", "select pg_sleep(50)").Start()
	r.Eventually(10*time.Second, "the slow query runs", func() bool {
		return psql("select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'") == "1"
	})
	slow.Signal(syscall.SIGINT) // psql sends a cancel request
	slow.Wait(10 * time.Second)
	if !strings.Contains(slow.Stderr(), "canceling statement due to user request") {
		t.Errorf("cancelled query: %s", slow.Stderr())
	}
}
