package apps

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/poemq/poemq/test/rig"
)

func TestMariaDB(t *testing.T) {
	r := rig.New(t, "mariadbd", "mariadb", "mariadb-install-db")
	port := r.Port()
	user := rig.Owner("nobody")
	data := r.Mkdir("data", user)
	install := r.Command("mariadb-install-db", "--no-defaults", "--datadir="+data, "--skip-test-db",
		"--auth-root-authentication-method=normal", "--skip-name-resolve", "--innodb-log-file-size=8M")
	install.User, install.Outside = user, true
	install.Output()

	args := []any{
		"mariadbd", "--no-defaults", "--datadir=" + data, fmt.Sprint("--port=", port), "--bind-address=127.0.0.1",
		"--socket=" + data + "/m.sock", "--pid-file=" + data + "/pid", "--innodb-log-file-size=8M",
		"--innodb-flush-log-at-trx-commit=0", "--local-infile=1", "--max-allowed-packet=64M",
	}
	if user != "" {
		args = append(args, "--user="+user) // it drops root by itself
	}
	server := r.Command(args...).Start()
	server.Says("ready for connections")

	client := func(args ...any) *rig.Cmd {
		base := []any{"mariadb", "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", port, "-u", "root", "-BN", "--local-infile=1", "--max-allowed-packet=64M"}
		return r.Command(append(base, args...)...)
	}
	query := func(sql string) string {
		t.Helper()
		return strings.TrimSpace(client("-e", sql).Output())
	}

	query("create database poems; create table poems.a (i int primary key, word char(32)); create table poems.b like poems.a")
	const rows = 50000
	var sql strings.Builder
	for i := range rows {
		if i%1000 == 0 {
			sql.WriteString(";\ninsert into a values ")
		} else {
			sql.WriteByte(',')
		}
		fmt.Fprintf(&sql, "(%d, md5(%d))", i, i)
	}
	bulk := client("poems")
	bulk.Stdin = strings.NewReader(strings.TrimPrefix(sql.String(), ";") + ";\n")
	bulk.Output()

	// Out as text and in again by the client: the same table.
	r.Write("rows", client("poems", "-e", "select * from a order by i").Output())
	query(fmt.Sprintf("load data local infile '%s' into table poems.b", r.Path("rows")))
	sums := strings.Fields(query("checksum table poems.a, poems.b"))
	if len(sums) != 4 || sums[1] != sums[3] || sums[1] == "0" {
		t.Errorf("checksum of the table and of its copy: %q", sums)
	}
	if got := query("select count(*), md5(group_concat(word order by i)) from poems.b where i < 30"); got != query("select 30, md5(group_concat(md5(i) order by i)) from poems.a where i < 30") {
		t.Errorf("the copy's first rows: %s", got)
	}
	if got := query("select length(repeat('poem', 1000000)), md5(repeat('poem', 1000000))"); !strings.HasPrefix(got, "4000000\t") {
		t.Errorf("a long value: %s", got)
	}
	if got := len(query("select repeat('poem', 1000000)")); got != 4000000 {
		t.Errorf("a value of 4,000,000 bytes arrived with %d", got)
	}
	if got := query("select user()"); got != "root@localhost" && got != "root@127.0.0.1" {
		t.Errorf("the server knows the client as %s", got)
	}
	if got := query("select host from information_schema.processlist where id = connection_id()"); !strings.HasPrefix(got, "localhost:") && !strings.HasPrefix(got, "127.0.0.1:") {
		t.Errorf("the server knows the client's address as %s", got)
	}

	client("-e", "shutdown").Output()
	server.Wait(20 * time.Second)
}
