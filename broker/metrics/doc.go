// Package metrics shows what a broker does, to Prometheus and to people: GET
// /metrics, and a status page at /, which draws what GET /page.json tells.
//
// What comes in: requests of this host, over a UNIX socket or a loopback
// address. What goes out: figures, names of programs and addresses of peers, to
// whoever may connect; nothing can be changed here. The page is made of what is
// embedded and asks nobody else, so it works without a network. A name that
// resolves to a loopback address is no way in for web pages of others: the Host
// that is asked for must be a loopback address or localhost.
//
// Figures are taken when they are asked for. Nothing is sampled in between, and
// no lock of the broker's is held while an answer is written.
package metrics
