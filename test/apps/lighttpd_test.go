package apps

import (
	"fmt"
	"testing"

	"github.com/poemq/poemq/test/rig"
)

func TestLighttpd(t *testing.T) {
	r := rig.New(t, "lighttpd", "curl", "ab")
	port := r.Port()
	_, sum := r.Random("www/big", bigFile)
	r.Write("www/hello", "hello\n")
	conf := r.Write("lighttpd.conf", fmt.Sprintf(`
server.document-root = "%s"
server.bind = "127.0.0.1"
server.port = %d
server.upload-dirs = ( "%s" )
server.max-keep-alive-requests = 10000
`, r.Path("www"), port, r.Path("tmp")))
	server := r.Command("lighttpd", "-D", "-f", conf).Start()
	server.Listens(port)
	base := fmt.Sprintf("http://127.0.0.1:%d", port)
	fetch(r, base+"/big", sum)
	ab(r, base+"/hello", 2000, "-k")
	ab(r, base+"/hello", 500)
}
