package link

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MTU of the path, octets.
const MTU = 1500

// device is the name of the path's end in both namespaces.
const device = "path0"

// openTUN makes a TUN device in the calling thread's network namespace, with
// plain IP packets on the descriptor, which is the caller's.
func openTUN() (fd int, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun (is the tun module there?): %w", err)
	}
	request, err := unix.NewIfreq(device)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("make TUN device %s: %w", device, err)
	}
	return fd, nil
}
