package apps

import (
	"fmt"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

// haproxy with two threads in front of nginx: as HTTP proxy with a health
// check, and as TCP proxy with splice.
func TestHAProxy(t *testing.T) {
	r := rig.New(t, "haproxy", "nginx", "curl", "wrk", "ab")
	upstream, http, tcp := r.Port(), r.Port(), r.Port()
	_, sum := r.Random("www/big", bigFile)
	backend := nginx(r, "nginx", site(r, fmt.Sprint("127.0.0.1:", upstream)), upstream)

	conf := r.Write("haproxy.cfg", fmt.Sprintf(`
global
	nbthread 2
	maxconn 500
	log stderr local0 info
defaults
	timeout connect 10s
	timeout client 30s
	timeout server 30s
	option redispatch
frontend http
	mode http
	bind 127.0.0.1:%d
	default_backend http
backend http
	mode http
	option httpchk GET /hello
	option forwardfor
	server one 127.0.0.1:%[3]d check inter 200ms
listen tcp
	mode tcp
	option splice-auto
	bind 127.0.0.1:%[2]d
	server one 127.0.0.1:%[3]d
`, http, tcp, upstream))
	proxy := r.Command("haproxy", "-db", "-f", conf).Start()
	proxy.Listens(http)
	proxy.Listens(tcp)

	for _, port := range []int{http, tcp} {
		base := fmt.Sprintf("http://127.0.0.1:%d", port)
		fetch(r, base+"/big", sum)
		wrk(r, base+"/hello")
		ab(r, base+"/hello", 500)
	}
	noErrors(r, backend)
}
