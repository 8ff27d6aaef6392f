// Foreign is a QUIC client that is no poemq: it speaks HTTP/3's ALPN to an
// address and prints how the handshake ends. It lives here because only the
// quic tree imports quic-go.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"os"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: foreign ADDRESS:PORT")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := quicgo.DialAddr(ctx, os.Args[1], &tls.Config{
		NextProtos:         []string{"h3"},
		ServerName:         "localhost",
		InsecureSkipVerify: true, // it is to get as far as it can
	}, nil)
	if err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("connected")
	_ = conn.CloseWithError(0, "")
}
