package apps

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// nginx starts nginx with two workers and the given content of its http block.
// As root the workers drop to www-data, as Debian configures them.
func nginx(r *rig.Rig, name, http string, port int) *rig.Proc {
	r.Helper()
	dir := r.Mkdir(name, "")
	user := ""
	if os.Geteuid() == 0 {
		user = "user www-data;"
	}
	conf := r.Write(name+"/nginx.conf", fmt.Sprintf(`
daemon off;
%s
worker_processes 2;
pid %[2]s/pid;
error_log stderr info;
events { worker_connections 512; }
http {
	access_log off;
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000;
	client_max_body_size 50m;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	add_header X-Worker $pid;
	%[3]s
}
`, user, dir, http))
	p := r.Command("nginx", "-p", dir, "-e", "stderr", "-c", conf).Start()
	p.Listens(port)
	return p
}

// site is a server block with a root directory and a small page.
func site(r *rig.Rig, listen ...string) string {
	var b strings.Builder
	for _, l := range listen {
		fmt.Fprintf(&b, "listen %s;\n", l)
	}
	return fmt.Sprintf(`server {
		%s
		root %s;
		location = /hello { return 200 "hello\n"; }
		location = /peer { return 200 "$remote_addr $server_addr $server_port\n"; }
	}`, b.String(), r.Mkdir("www", ""))
}

func noErrors(r *rig.Rig, p *rig.Proc) {
	r.Helper()
	for _, level := range []string{"[error]", "[crit]", "[alert]", "[emerg]"} {
		if strings.Contains(p.Stderr(), level) {
			r.Errorf("nginx logged %s:\n%s", level, p.Stderr())
			return
		}
	}
}

func TestNginxServes(t *testing.T) {
	r := rig.New(t, "nginx", "curl", "wrk", "ab")
	port := r.Port()
	_, sum := r.Random("www/big", bigFile)
	server := nginx(r, "nginx", site(r, fmt.Sprint("127.0.0.1:", port), fmt.Sprintf("[::1]:%d", port)), port)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)

	fetch(r, base+"/big", sum) // by sendfile
	fetch(r, fmt.Sprintf("http://[::1]:%d/big", port), sum)

	want := fmt.Sprintf("127.0.0.1 127.0.0.1 %d\n", port)
	if got := r.Command("curl", "-sS", base+"/peer").Output(); got != want {
		t.Errorf("nginx sees the connection as %q, want %q", got, want)
	}
	// Keep-alive: twenty requests, one connection.
	out := r.Command("curl", "-sS", "-o", "/dev/null", "-w", `%{num_connects}\n`, base+"/hello?[1-20]").Output()
	if want := "1\n" + strings.Repeat("0\n", 19); out != want {
		t.Errorf("connections made per request:\n%s", out)
	}
	wrk(r, base+"/hello")
	ab(r, base+"/hello", 2000, "-k")
	ab(r, base+"/hello", 500)
	noErrors(r, server)
}

func TestNginxReuseport(t *testing.T) {
	r := rig.New(t, "nginx", "curl", "wrk")
	port := r.Port()
	_, sum := r.Random("www/big", bigFile)
	server := nginx(r, "nginx", site(r, fmt.Sprintf("127.0.0.1:%d reuseport", port)), port)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	fetch(r, base+"/big", sum)

	// Each worker has its own listening socket on the port: both get some of
	// 64 connections.
	out := r.Command("curl", "-sS", "-o", "/dev/null", "-D", "-", "-H", "Connection: close", base+"/hello?[1-64]").Output()
	served := make(map[string]int)
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(line, ": "); ok && name == "X-Worker" {
			served[strings.TrimSpace(value)]++
		}
	}
	if len(served) != 2 {
		t.Errorf("connections per worker: %v, want two workers", served)
	}
	wrk(r, base+"/hello")
	noErrors(r, server)
}

func TestNginxProxy(t *testing.T) {
	r := rig.New(t, "nginx", "curl", "wrk", "ab")
	port, upstream := r.Port(), r.Port()
	_, sum := r.Random("www/big", bigFile)
	nginx(r, "upstream", site(r, fmt.Sprint("127.0.0.1:", upstream)), upstream)
	proxy := nginx(r, "proxy", fmt.Sprintf(`
	upstream site { server 127.0.0.1:%d; keepalive 8; }
	server {
		listen 127.0.0.1:%d;
		location / {
			proxy_pass http://site;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
		}
		# A new connection to the upstream for each request, and an upload
		# that is passed on while it comes in.
		location /upload { proxy_request_buffering off; proxy_pass http://127.0.0.1:%[3]d/length; }
		location /fresh { proxy_pass http://127.0.0.1:%[1]d/hello; }
	}
	server {
		listen 127.0.0.1:%[3]d;
		location = /length { proxy_pass http://127.0.0.1:%[3]d/swallow; proxy_pass_request_body on; }
		location = /swallow { return 200 "$content_length"; }
	}`, upstream, port, r.Port()), port)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)

	fetch(r, base+"/big", sum)
	file, _ := r.Random("upload", 5<<20)
	if got := r.Command("curl", "-sS", "--data-binary", "@"+file, base+"/upload").Output(); got != fmt.Sprint(5<<20) {
		t.Errorf("an upload of 5 MiB arrived as %q", got)
	}
	wrk(r, base+"/hello")
	ab(r, base+"/fresh", 500)
	noErrors(r, proxy)
}
