package systemd

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBooted is an administrator's day: each step stands on those before.
func TestBooted(t *testing.T) {
	m := boot(t)
	for _, step := range []struct {
		name string
		run  func(*machine)
	}{
		{"the units start and are hardened", (*machine).unitsStart},
		{"who is not in the group is refused", (*machine).strangersAreRefused},
		{"services are put under poemq", (*machine).enable},
		{"systemctl restart", (*machine).restart},
		{"kill -9", (*machine).kill},
		{"a broker that stands still", (*machine).frozen},
		{"drain", (*machine).drain},
		{"a service restarts", (*machine).serviceRestarts},
		{"reload", (*machine).reload},
		{"services are taken out again", (*machine).disable},
		{"stop", (*machine).stopBroker},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			sub := *m
			sub.T = t
			step.run(&sub)
		}) {
			return
		}
	}
}

func (m *machine) unitsStart() {
	m.do("systemctl", "enable", "--now", "poemq.service")
	for unit, want := range map[string]string{"poemq.service": "active", "poemq.socket": "active"} {
		if got := m.property(unit, "ActiveState"); got != want {
			m.Errorf("%s is %s", unit, got)
		}
	}
	if got := strings.TrimSpace(m.do("stat", "-c", "%a %U:%G", "/run/poemq/broker.sock")); got != "660 root:poemq" {
		m.Errorf("the socket is %s, want 660 root:poemq", got)
	}
	pid := m.property("poemq.service", "MainPID")
	if got := strings.TrimSpace(m.do("ps", "-o", "user=", "-p", pid)); got != "poemq" {
		m.Errorf("poemqd runs as %s", got)
	}
	// 25 is an exposure of 2.5.
	if out, err := m.try("systemd-analyze", "--no-pager", "security", "--threshold=25", "poemq.service"); err != nil {
		m.Errorf("systemd-analyze security: %v\n%s", err, out)
	} else {
		lines := strings.Split(strings.TrimSpace(out), "\n")
		m.Log(lines[len(lines)-1])
	}
	m.do("systemd-analyze", "--no-pager", "verify", "--man=no", "/usr/lib/systemd/system/poemq.service", "/usr/lib/systemd/system/poemq.socket")
	if got := m.do("sysctl", "--values", "--ignore", "net.core.rmem_max"); strings.TrimSpace(got) != "" {
		m.Logf("net.core.rmem_max is %s", strings.TrimSpace(got)) // the host's: containers cannot set it
	}
}

func (m *machine) strangersAreRefused() {
	out, err := m.try("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "poemq-launch", "--on-broker-missing", "fail", "--", "true")
	if err == nil || !strings.Contains(out, "join the group") {
		m.Errorf("a user outside the group: %v\n%s", err, out)
	}
}

// ask is a conversation with a port in the machine, by QUIC alone.
func (m *machine) ask(port int, word string) (string, error) {
	out, err := m.try("poemq-launch", "--on-broker-missing", "fail", "--quic", "require", "--", "python3", "/usr/local/bin/conn.py", strconv.Itoa(port), word)
	return strings.TrimSpace(out), err
}

// answers has both services answer, by QUIC.
func (m *machine) answers() {
	m.Helper()
	if got, err := m.ask(8080, "hello"); err != nil || !strings.HasSuffix(got, " hello") {
		m.Errorf("web: %q, %v", got, err)
	}
	if got, err := m.ask(80, "GET / HTTP/1.0\r\n\r"); err != nil || !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
		m.Errorf("nginx: %q, %v", got, err)
	}
}

func (m *machine) enable() {
	m.do("systemctl", "start", "nginx.service", "web.service")
	out := m.do("poemqctl", "enable", "nginx", "web.service")
	m.Log(out)
	for _, want := range []string{
		"/etc/systemd/system/nginx.service.d/50-poemq.conf: written",
		"ExecStart=/usr/bin/poemq-launch --on-broker-missing fail -- /usr/sbin/nginx -g 'daemon on; master_process on;'",
		"ExecStart=/usr/bin/poemq-launch --on-broker-missing fail --argv0 web-server -- /usr/bin/python3 /usr/local/bin/web.py 8080",
		"SystemCallFilter=seccomp", "SupplementaryGroups=poemq", "systemctl restart nginx.service",
	} {
		if !strings.Contains(out, want) {
			m.Errorf("enable does not say %q", want)
		}
	}
	m.do("systemctl", "restart", "nginx.service", "web.service")
	m.answers()
	if got := m.property("web.service", "StatusText"); got != "web-server" {
		m.Errorf("web.service finds %q as its name, want web-server", got)
	}
	if again := m.do("poemqctl", "enable", "nginx"); !strings.Contains(again, "unchanged") {
		m.Errorf("enabled once more: %s", again)
	}
	var status struct{ Sessions int }
	if err := json.Unmarshal([]byte(m.do("poemqctl", "--json", "status")), &status); err != nil || status.Sessions < 2 {
		m.Errorf("poemqctl status: %+v, %v", status, err)
	}
}

// services are the main processes of both: none may change with the broker.
func (m *machine) services() string {
	m.Helper()
	return m.property("nginx.service", "MainPID") + " " + m.property("web.service", "MainPID") + " " + m.property("web.service", "NRestarts")
}

// during has the broker end by f, and services go on.
func (m *machine) during(f func()) {
	m.Helper()
	before, broker := m.services(), m.property("poemq.service", "MainPID")
	f()
	m.answers()
	if after := m.property("poemq.service", "MainPID"); after == broker || after == "0" {
		m.Errorf("the broker is process %s, as before", after)
	}
	if after := m.services(); after != before {
		m.Errorf("services were %s, and are %s", before, after)
	}
}

func (m *machine) restart() {
	for range 3 {
		m.during(func() { m.do("systemctl", "restart", "poemq.service") })
	}
	m.journal("sessions of the broker before go on")
}

// journal waits for words in the broker's.
func (m *machine) journal(words string) {
	m.Helper()
	m.await(soon, "the journal has "+words, func() bool {
		out, err := m.try("journalctl", "--no-pager", "-o", "cat", "-u", "poemq.service")
		return err == nil && strings.Contains(out, words)
	})
}

func (m *machine) kill() {
	for range 5 {
		var took time.Duration
		m.during(func() {
			pid := m.property("poemq.service", "MainPID")
			begin := time.Now()
			m.do("kill", "-KILL", pid)
			if _, err := m.ask(8080, "first"); err != nil {
				m.Errorf("the first connection: %v", err)
			}
			took = time.Since(begin)
		})
		m.Logf("%v from kill -9 to the end of the first conversation, its programs' start included", took.Round(time.Millisecond))
		if took > 5*time.Second {
			m.Errorf("it took %v", took)
		}
	}
	if n, _ := strconv.Atoi(m.property("poemq.service", "NRestarts")); n < 5 {
		m.Errorf("systemd restarted it %d times, want 5 or more", n)
	}
	m.journal("calls that the broker before had begun")
}

// frozen: systemd replaces a broker that does not say that it is well.
func (m *machine) frozen() {
	const file = "/run/systemd/system/poemq.service.d/90-test.conf"
	m.do("sh", "-c", "mkdir -p ${1%/*} && printf '[Service]\nWatchdogSec=2\n' >$1 && systemctl daemon-reload && systemctl restart poemq.service", "sh", file)
	m.during(func() {
		pid := m.property("poemq.service", "MainPID")
		m.do("kill", "-STOP", pid)
		m.await(soon, "systemd replaces the broker", func() bool {
			now := m.property("poemq.service", "MainPID")
			return now != pid && now != "0" && m.property("poemq.service", "ActiveState") == "active"
		})
	})
	m.do("sh", "-c", "rm $1 && systemctl daemon-reload && systemctl restart poemq.service", "sh", file)
}

// drain lets a connection end first.
func (m *machine) drain() {
	m.during(func() {
		c := exec.Command("nsenter", "--target", strconv.Itoa(m.leader), "--mount", "--net", "--pid", "--",
			"poemq-launch", "--on-broker-missing", "fail", "--quic", "require", "--", "python3", "/usr/local/bin/conn.py", "8080", "slow", "2")
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			m.Fatal(err)
		}
		m.await(soon, "the slow conversation begins", func() bool {
			var s struct{ Relays int }
			text, err := m.try("poemqctl", "--json", "status")
			return err == nil && json.Unmarshal([]byte(text), &s) == nil && s.Relays >= 2 // both ends
		})
		said := m.do("poemqctl", "drain", "--deadline", "30s")
		if !strings.Contains(said, "nothing is open any more") {
			m.Errorf("drain says %s", said)
		}
		if err := c.Wait(); err != nil || strings.Count(out.String(), " slow") != 2 {
			m.Errorf("the slow conversation: %v\n%s", err, out.String())
		}
		old := m.property("poemq.service", "MainPID")
		m.await(soon, "the next broker", func() bool {
			return m.property("poemq.service", "ActiveState") == "active" && m.property("poemq.service", "MainPID") != "0"
		})
		_ = old
	})
}

// serviceRestarts: a port that was kept for the next broker is free for the
// service's next process.
func (m *machine) serviceRestarts() {
	for range 3 {
		m.do("systemctl", "restart", "nginx.service", "web.service")
		m.answers()
	}
}

func (m *machine) reload() {
	before := m.services()
	m.do("systemctl", "reload", "poemq.service")
	m.journal("configuration read again")
	m.answers()
	if after := m.services(); after != before {
		m.Errorf("services were %s, and are %s", before, after)
	}
}

func (m *machine) disable() {
	out := m.do("poemqctl", "disable", "--now", "nginx", "web")
	if strings.Count(out, ": removed") != 2 {
		m.Errorf("disable says %s", out)
	}
	if out, err := m.try("python3", "/usr/local/bin/conn.py", "8080", "plain"); err != nil || !strings.Contains(out, "1 plain") {
		m.Errorf("web without poemq: %v\n%s", err, out)
	}
	if got := m.property("web.service", "DropInPaths"); got != "" {
		m.Errorf("web.service still has %s", got)
	}
}

func (m *machine) stopBroker() {
	m.do("systemctl", "stop", "poemq.socket", "poemq.service")
	if got := m.property("poemq.service", "Result"); got != "success" {
		m.Errorf("poemq.service ended with %s", got)
	}
}
