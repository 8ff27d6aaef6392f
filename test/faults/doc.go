// Package faults proves what poemq survives: brokers, programs and launchers
// that are killed or frozen, hosts that run out of something, and many of
// everything at once. A broker that is started anew goes on with what the one
// before it left (rig.Store is systemd's part in that).
package faults
