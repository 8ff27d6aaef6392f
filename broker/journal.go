package broker

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/poemq/poemq/notify"
	"golang.org/x/sys/unix"
)

// journal is what the broker after this one has to know of a session, in memory
// that outlives us: a memfd, kept beside the session's listener. It is true at
// every moment, since nobody tells when we are killed.
//
//	0          the head: its length, 4 octets, and JSON; at topAt, how many
//	           places for calls were used
//	headSize   calls that were received: identifier and thread, 16 octets each.
//	           The first is the last one that came; the others wait for a late
//	           answer. Whether they still wait, the kernel is asked.
//	slotsAt    sockets: a word that says which half counts (0: none), and two
//	           halves, so that one is whole while the other is written
//
// Memory that is not written to takes no room.
type journal struct {
	fd  int
	mem []byte

	mu     sync.Mutex // guards what follows
	free   []int32    // slots that were used and are not
	next   int32      // slots from here on never were
	full   bool       // was told
	closed bool
}

const (
	journalVersion = 1
	headSize       = 4096
	topAt          = headSize - 8
	callSize       = 16
	maxCalls       = 16384
	slotsAt        = headSize + maxCalls*callSize
	slotSize       = 1024
	halfSize       = (slotSize - 8) / 2
	maxSlots       = 32768
	journalSize    = slotsAt + maxSlots*slotSize
)

// journalHead is of the session itself.
type journalHead struct {
	Version   int      `json:"version"`
	Name      string   `json:"name"`
	Asked     string   `json:"asked"`
	Match     [][3]int `json:"match"`
	SeesSetns bool     `json:"sees_setns"`
	UID       uint32   `json:"uid"`
}

// newJournal makes an empty one. Close it.
func newJournal(h journalHead) (*journal, error) {
	h.Version = journalVersion
	head, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(head) > topAt-4 {
		return nil, fmt.Errorf("the session's head has %d octets, %d is the most", len(head), topAt-4)
	}
	fd, err := unix.MemfdCreate("poemq-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("poemq-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, journalSize); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ftruncate: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("seal the journal: %w", err)
	}
	j, err := mapJournal(fd)
	if err != nil {
		return nil, err
	}
	copy(j.mem[4:], head)
	j.word(0).Store(uint32(len(head)))
	return j, nil
}

// openJournal takes over one that another broker wrote. Close it.
func openJournal(fd int) (*journal, journalHead, error) {
	var h journalHead
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != journalSize {
		unix.Close(fd)
		return nil, h, fmt.Errorf("a journal of %d octets, want %d: that of another version", st.Size, journalSize)
	}
	// One that somebody could cut would kill us (SIGBUS).
	if seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_SHRINK == 0 {
		unix.Close(fd)
		return nil, h, errors.New("a journal that is not sealed")
	}
	j, err := mapJournal(fd)
	if err != nil {
		return nil, h, err
	}
	n := j.word(0).Load()
	if n > topAt-4 {
		err = fmt.Errorf("its head has %d octets", n)
	} else if err = json.Unmarshal(j.mem[4:4+n], &h); err == nil && h.Version != journalVersion {
		err = fmt.Errorf("version %d, want %d", h.Version, journalVersion)
	}
	if err != nil {
		j.close()
		return nil, h, fmt.Errorf("a session's journal: %w", err)
	}
	return j, h, nil
}

// mapJournal takes fd over.
func mapJournal(fd int) (*journal, error) {
	mem, err := unix.Mmap(fd, 0, journalSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mmap: %w", err)
	}
	return &journal{fd: fd, mem: mem}, nil
}

func (j *journal) close() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.closed = true
	unix.Munmap(j.mem)
	unix.Close(j.fd)
}

// word is an aligned word that counts at once: stores before it are seen by who
// reads it.
func (j *journal) word(at int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&j.mem[at]))
}

func (j *journal) callID(n int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&j.mem[headSize+n*callSize]))
}

// putCall notes a call at place n, of which 0 is for the one that is handled.
func (j *journal) putCall(n int, c notify.Caught) {
	if top := j.word(topAt); top.Load() <= uint32(n) { // one thread does this
		top.Store(uint32(n) + 1)
	}
	id := j.callID(n)
	id.Store(0)
	j.word(headSize + n*callSize + 8).Store(uint32(c.TID))
	id.Store(c.ID)
}

// calls are those that were noted. (0 is an identifier that no call has: the
// kernel begins with a random one.)
func (j *journal) calls() (all []notify.Caught) {
	for n := range j.usedCalls() {
		if id := j.callID(n).Load(); id != 0 {
			all = append(all, notify.Caught{ID: id, TID: int(j.word(headSize + n*callSize + 8).Load())})
		}
	}
	return all
}

// forgetCalls is for those that have been seen to.
func (j *journal) forgetCalls() {
	for n := range j.usedCalls() {
		j.callID(n).Store(0)
	}
	j.word(topAt).Store(0)
}

// usedCalls is how many places were used: to read the others would make memory
// of them.
func (j *journal) usedCalls() int { return min(int(j.word(topAt).Load()), maxCalls) }

// noSlot is of a socket that has no record.
const noSlot = -1

// take is a free slot; noSlot and, once, full when there is none.
func (j *journal) take() (slot int32, full bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return noSlot, false
	case len(j.free) > 0:
		slot = j.free[len(j.free)-1]
		j.free = j.free[:len(j.free)-1]
		return slot, false
	case j.next < maxSlots:
		j.next++
		return j.next - 1, false
	}
	full = !j.full
	j.full = true
	return noSlot, full
}

// put writes a record, of at most halfSize octets less two, to slot. Calls for
// one slot come one after the other.
func (j *journal) put(slot int32, record []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	at := slotsAt + int(slot)*slotSize
	which := j.word(at)
	next := which.Load()%2 + 1 // 1 after 2 and none, 2 after 1
	half := j.mem[at+8+int(next-1)*halfSize:][:halfSize]
	binary.NativeEndian.PutUint16(half, uint16(len(record)))
	copy(half[2:], record)
	which.Store(next)
}

// release frees a slot.
func (j *journal) release(slot int32) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	j.word(slotsAt + int(slot)*slotSize).Store(0)
	j.free = append(j.free, slot)
}

// records gives every record and its slot, and has take give none of these.
func (j *journal) records(f func(slot int32, record []byte)) {
	j.mu.Lock()
	used := j.used()
	j.mu.Unlock()
	for _, slot := range used {
		at := slotsAt + int(slot)*slotSize
		half := j.mem[at+8+int(j.word(at).Load()-1)*halfSize:][:halfSize]
		n := min(int(binary.NativeEndian.Uint16(half)), halfSize-2)
		f(slot, half[2:2+n])
	}
}

// used lists the slots that hold something. Those behind the last were never
// touched: whole pages of zeros that reading would make, so holes are skipped.
// j.mu is held.
func (j *journal) used() (all []int32) {
	end, err := lastData(j.fd)
	if err != nil {
		end = journalSize
	}
	for slot := int32(0); slot < maxSlots && slotsAt+int64(slot)*slotSize < end; slot++ {
		switch j.word(slotsAt + int(slot)*slotSize).Load() {
		case 1, 2:
			for ; j.next < slot; j.next++ {
				j.free = append(j.free, j.next)
			}
			j.next = slot + 1
			all = append(all, slot)
		}
	}
	return all
}

// lastData is where the last hole of a file begins (lseek(2), SEEK_DATA).
func lastData(fd int) (end int64, err error) {
	for {
		data, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return end, nil
		}
		if err != nil {
			return 0, err
		}
		if end, err = unix.Seek(fd, data, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
	}
}
