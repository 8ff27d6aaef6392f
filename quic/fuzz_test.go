package quic

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quic-go/quic-go/quicvarint"
)

// FuzzControl: each message is at most what the rules allow, and reading ends
// with an error of three kinds.
func FuzzControl(f *testing.F) {
	f.Add([]byte{msgGoAway, 0, msgDone, 1, 7, msgKeepAlive, 2, 0, 0, 0x40, 0x99, 1, 1})
	f.Add(quicvarint.Append([]byte{msgDone}, 1<<61))
	f.Fuzz(func(t *testing.T, b []byte) {
		src := bytes.NewReader(b)
		r := bufio.NewReaderSize(src, 512)
		for {
			left := src.Len() + r.Buffered()
			_, err := readMessage(r)
			if err == nil && left-src.Len()-r.Buffered() > 16+maxControlBody {
				t.Fatal("a message is too long")
			}
			if err == nil {
				continue
			}
			if !errors.Is(err, errMessage) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("unexpected kind of error: %v", err)
			}
			return
		}
	})
}

// FuzzIdentity: a damaged key file is an error.
func FuzzIdentity(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if id, err := parseIdentity(b, ""); (id == nil) == (err == nil) {
			t.Errorf("%v, %v", id, err)
		}
	})
}

// FuzzCertificates: a file of certificates has some, or there is an error.
func FuzzCertificates(f *testing.F) {
	id, err := LoadIdentity("")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(id.cert.Certificate[0])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if certs, err := parseCertificates(b); (len(certs) > 0) != (err == nil) {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	})
}

// FuzzExtendedError: a control message of the error queue, of any length.
func FuzzExtendedError(f *testing.F) {
	f.Add([]byte{111, 0, 0, 0, 2, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, v4 bool) {
		c := unix.SocketControlMessage{Header: unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_RECVERR}, Data: b}
		if v4 {
			c.Header.Level, c.Header.Type = unix.IPPROTO_IP, unix.IP_RECVERR
		}
		if errno, icmp := extendedError(c); len(b) < 16 && (errno != 0 || icmp) {
			t.Errorf("%v, %v", errno, icmp)
		}
	})
}

// FuzzTicket: a client may show anything for a ticket; what is not ours is none.
func FuzzTicket(f *testing.F) {
	id, err := LoadIdentity("")
	if err != nil {
		f.Fatal(err)
	}
	k := &tickets{id: id, where: "127.0.0.1:1", now: time.Now}
	f.Add([]byte{})
	f.Add(binary.BigEndian.AppendUint32(nil, k.epoch()))
	f.Add(append(binary.BigEndian.AppendUint32(nil, k.epoch()), make([]byte, 60)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k.unwrap(b) != nil {
			t.Fatalf("%x is taken for a ticket", b)
		}
	})
}

// FuzzSegmentSize: packets of a train are never of no length, which would not end.
func FuzzSegmentSize(f *testing.F) {
	f.Add([]byte{}, 1500)
	f.Fuzz(func(t *testing.T, oob []byte, length int) {
		if length <= 0 || length > 1<<16 {
			return
		}
		if n := segmentSize(oob, length); n <= 0 {
			t.Fatalf("segments of %d in %d octets", n, length)
		}
	})
}
