// Gohttp is a net/http server and client to be built statically: the Go runtime
// makes its system calls itself, without a C library.
//
//	gohttp server PORT    answers a POST with the body and its SHA-256
//	gohttp client PORT N  makes N requests at once and checks every body
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
)

const bodySize = 100_000

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 3 && os.Args[1] == "server":
		log.Fatal(serve(os.Args[2]))
	case len(os.Args) == 4 && os.Args[1] == "client":
		n, err := strconv.Atoi(os.Args[3])
		if err == nil {
			err = load(os.Args[2], n)
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(n, "bodies right")
	default:
		log.Fatal("usage: gohttp server PORT | gohttp client PORT N")
	}
}

func serve(port string) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sha256.Sum256(body)))
		w.Header().Set("X-Peer", req.RemoteAddr)
		_, _ = w.Write(body) // the client counts
	}))
}

// load makes n requests, all at once, and every second one on a connection of
// its own.
func load(port string, n int) error {
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			client := http.DefaultClient
			if i%2 == 1 {
				client = fresh
			}
			errs[i] = request(client, "http://127.0.0.1:"+port, i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func request(client *http.Client, url string, i int) error {
	body := make([]byte, bodySize)
	seed := [32]byte{byte(i), byte(i >> 8)}
	if _, err := rand.NewChaCha8(seed).Read(body); err != nil {
		return err
	}
	resp, err := client.Post(url, "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if sum := fmt.Sprintf("%x", sha256.Sum256(body)); !bytes.Equal(got, body) || resp.Header.Get("X-Sum") != sum {
		return fmt.Errorf("request %d: %s, %d bytes, sum %s, want %s", i, resp.Status, len(got), resp.Header.Get("X-Sum"), sum)
	}
	if host, _, err := net.SplitHostPort(resp.Header.Get("X-Peer")); err != nil || host != "127.0.0.1" {
		return fmt.Errorf("request %d: the server sees the client as %q", i, resp.Header.Get("X-Peer"))
	}
	return nil
}
