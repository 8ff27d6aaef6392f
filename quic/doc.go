// Package quic brings a program's bytes to the other host: one bidirectional
// QUIC stream for each TCP connection, on connections that streams to the same
// peer share. It is the only package that knows quic-go, and knows nothing of
// how programs are caught.
package quic
