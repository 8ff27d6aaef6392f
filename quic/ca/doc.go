// Package ca is a small certificate authority in a directory, for fleets that
// have none. It knows nothing of QUIC: what it issues is plain X.509.
//
// # What is in the directory
//
//	ca.pem      the CA's certificate; every host gets a copy
//	ca-key.pem  its private key, mode 0600; stays here
//	index       one line of JSON for each certificate issued, in order
//	crl.pem     what is revoked, signed; every host gets a copy
//	lock        held (flock(2)) while one of them is changed
//
// Files are replaced by rename(2), never written in place, so that a reader or
// a crash finds the old or the new one. Keys of hosts are not kept.
//
// # What it issues
//
// Keys are ECDSA P-256. The CA's certificate lives 10 years, signs hosts only
// (path length 0) and lists; a host's lives 825 days unless told otherwise and
// never longer than the CA's, and is good for servers and clients; a list
// should be renewed within 30 days. Times begin an hour in the past, for
// clocks that are late.
package ca
