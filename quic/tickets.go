package quic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	quicgo "github.com/quic-go/quic-go"
)

// A server's session ticket (RFC 8446 section 4.6.1) is
//
//	epoch  32 bits, days since 1970-01-01 UTC
//	nonce  12 octets
//	state  AES-256-GCM, with the epoch as additional data
//
// Its key is derived from the identity key, the listening address and the
// epoch. So tickets outlive the process and hold in all that share the state
// directory; and a ticket, with the 0-RTT data after it, is worth nothing on
// another port of the same host, where other rules about replay may hold. A
// ticket is good during its day and the next.
const (
	ticketEpoch = 24 * time.Hour
	epochSize   = 4
)

// derive makes a key of 32 octets from the identity key. Labels keep keys of
// different use apart.
func (id *Identity) derive(label string) ([]byte, error) {
	secret, err := id.key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("identity key: %w", err)
	}
	b, err := hkdf.Key(sha256.New, secret, nil, label, 32)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return b, nil
}

// resetKey is that of stateless reset tokens (RFC 9000 section 10.3.2) for one
// listening socket. It is the same after a restart, so that a peer of the
// process before us is told at once; and another one for each socket, so that a
// packet replayed to another port of ours does not give its token away.
func (id *Identity) resetKey(where string) (*quicgo.StatelessResetKey, error) {
	b, err := id.derive("poemq stateless reset " + where)
	if err != nil {
		return nil, err
	}
	return (*quicgo.StatelessResetKey)(b), nil
}

// tokenKey is that of address validation tokens (RFC 9000 section 8.1.3) for
// one listening socket. It needs no epoch: quic-go makes a key of its own for
// each token from it, and a token says when it was made.
func (id *Identity) tokenKey(where string) (*quicgo.TokenGeneratorKey, error) {
	b, err := id.derive("poemq address tokens " + where)
	if err != nil {
		return nil, err
	}
	return (*quicgo.TokenGeneratorKey)(b), nil
}

// aead is AES-256-GCM with a derived key.
func (id *Identity) aead(label string) (cipher.AEAD, error) {
	key, err := id.derive(label)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// tickets makes and reads the session tickets of one listening socket.
type tickets struct {
	id    *Identity
	where string
	now   func() time.Time
}

// issue has the server configuration c give and take tickets, and those that it
// makes for each client.
func (k *tickets) issue(c *tls.Config) {
	if each := c.GetConfigForClient; each != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			mine, err := each(hello)
			if mine != nil {
				k.issue(mine)
			}
			return mine, err
		}
	}
	c.SessionTicketsDisabled = false
	c.WrapSession = func(_ tls.ConnectionState, s *tls.SessionState) ([]byte, error) { return k.wrap(s) }
	c.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		return k.unwrap(ticket), nil
	}
}

func (k *tickets) epoch() uint32 { return uint32(k.now().Unix() / int64(ticketEpoch/time.Second)) }

func (k *tickets) aead(epoch uint32) (cipher.AEAD, error) {
	return k.id.aead(fmt.Sprintf("poemq session tickets %d %s", epoch, k.where))
}

func (k *tickets) wrap(s *tls.SessionState) ([]byte, error) {
	state, err := s.Bytes()
	if err != nil {
		return nil, err
	}
	epoch := k.epoch()
	a, err := k.aead(epoch)
	if err != nil {
		return nil, err
	}
	return seal(a, binary.BigEndian.AppendUint32(nil, epoch), state), nil
}

// unwrap gives nil for every ticket that is not ours, too old or damaged: the
// handshake then is a full one.
func (k *tickets) unwrap(ticket []byte) *tls.SessionState {
	if len(ticket) < epochSize {
		return nil
	}
	epoch, now := binary.BigEndian.Uint32(ticket), k.epoch()
	if epoch != now && epoch != now-1 {
		return nil
	}
	a, err := k.aead(epoch)
	if err != nil {
		return nil
	}
	state, err := open(a, epochSize, ticket)
	if err != nil {
		return nil
	}
	s, err := tls.ParseSessionState(state)
	if err != nil {
		return nil
	}
	return s
}

// seal gives head, a random nonce and the encrypted body. head is authenticated.
func seal(a cipher.AEAD, head, body []byte) []byte {
	nonce := make([]byte, a.NonceSize())
	rand.Read(nonce) // never fails
	out := append(append(make([]byte, 0, len(head)+len(nonce)+len(body)+a.Overhead()), head...), nonce...)
	return a.Seal(out, nonce, body, head)
}

var errSealed = errors.New("cut short")

// open is the inverse of seal, for a head of n octets.
func open(a cipher.AEAD, n int, b []byte) ([]byte, error) {
	if len(b) < n+a.NonceSize() {
		return nil, errSealed
	}
	nonce := b[n : n+a.NonceSize()]
	return a.Open(nil, nonce, b[n+a.NonceSize():], b[:n])
}
