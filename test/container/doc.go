// Package container runs poemq with container engines from Debian's packages:
// dockerd, podman, runc and crun, started by the tests themselves, in
// directories of their own.
//
// Two ways are tried. Entrypoint: poemq-launch is put into an image by the
// recipes of deploy/container. Agent: the image is as it is, and the engine's
// seccomp profile, made by "poemqctl oci-profile", has the runtime hand the
// container's socket calls to poemqd.
//
// Images are made here from a static busybox: nothing is pulled. Containers talk
// over a veth pair between their own network namespaces, on which a capture must
// show UDP and no TCP. It needs root.
package container
