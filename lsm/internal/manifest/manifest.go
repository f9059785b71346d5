// Package manifest keeps what recovery needs to know of a directory: the live
// tables and where the commit log begins. It is an append-only log of edits,
// each atomic and synced before it counts. FORMAT.md describes the bytes.
package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"sync/atomic"

	"example.com/kvstore/lsm/internal/base"
	"example.com/kvstore/lsm/vfs"
)

// A manifest is rewritten when it is longer than MinRewriteBytes, which tests lower,
// and rewriteFactor times as long as after the last rewrite.
var MinRewriteBytes int64 = 256 << 10

const (
	formatVersion = 1

	rewriteFactor = 4

	// maxBytes bounds the file that Open reads.
	maxBytes = 1 << 30
)

// ErrClosed says that the manifest was closed.
var ErrClosed = errors.New("manifest: closed")

// Manifest is the open manifest of a directory. Only State may be called while
// another call runs. The caller holds the lock of the directory.
type Manifest struct {
	fs    vfs.FS
	dir   string
	f     vfs.File
	draft *draft
	state atomic.Pointer[State] // the draft as published

	at        position // where the next frame goes
	rewriteAt int64    // length beyond which the file is rewritten

	// err is final. After a failed sync nobody knows what the disk holds, so
	// no edit is acknowledged any more.
	err error
}

// Create makes the manifest of a new directory, durably: after a crash there is
// none or this one. An existing one is replaced.
func Create(fs vfs.FS, dir string, p Params) (*Manifest, error) {
	if p.Slices == 0 || p.Slices > MaxSlices {
		return nil, fmt.Errorf("manifest: %d slices; choose 1 to %d", p.Slices, MaxSlices)
	}
	m := &Manifest{fs: fs, dir: dir, draft: newDraft(p)}
	m.state.Store(m.draft.publish())
	if err := m.rewrite(); err != nil {
		return nil, err
	}
	return m, nil
}

// Open opens the manifest of dir. An edit that was being written when the
// machine stopped, and so was never acknowledged, is cut off. Without a
// manifest the error satisfies errors.Is(err, fs.ErrNotExist); damage is a
// *base.CorruptError, a newer version base.ErrIncompatible.
func Open(fs vfs.FS, dir string) (*Manifest, error) {
	f, err := fs.OpenReadWrite(path.Join(dir, base.ManifestName))
	if err != nil {
		return nil, fmt.Errorf("manifest: open: %w", err)
	}
	d, at, size, err := read(f)
	if err == nil {
		err = settle(fs, dir, f, min(at.end, size))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	m := &Manifest{fs: fs, dir: dir, f: f, draft: d, at: at}
	m.state.Store(d.publish())
	m.rewriteAt = max(MinRewriteBytes, rewriteFactor*int64(len(m.State().append(nil))))
	if !m.sealed() && base.Defences.ManifestSeal {
		// The sync of the last edit may have failed and the kernel may show it
		// all the same, as clean pages that no sync brings to the disk.
		if err := m.rewrite(); err != nil {
			return nil, errors.Join(err, m.f.Close())
		}
	}
	return m, nil
}

// sealed reports whether the last edit is known to have been synced when it was
// written.
func (m *Manifest) sealed() bool {
	seal, off := m.at.seal()
	found := make([]byte, len(seal))
	_, _ = m.f.ReadAt(found, off) // too short is not sealed
	return bytes.Equal(found, seal)
}

// Read gives the state that Open would find, and changes nothing.
func Read(fs vfs.FS, dir string) (*State, error) {
	f, err := fs.Open(path.Join(dir, base.ManifestName))
	if err != nil {
		return nil, fmt.Errorf("manifest: open: %w", err)
	}
	defer f.Close()
	d, _, _, err := read(f)
	if err != nil {
		return nil, err
	}
	return d.publish(), nil
}

func read(f vfs.File) (d *draft, at position, size int64, err error) {
	b, err := readAll(f, base.ManifestName)
	if err != nil {
		return nil, position{}, 0, err
	}
	d, at, err = decode(b)
	return d, at, int64(len(b)), err
}

func readAll(f vfs.File, name string) ([]byte, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("manifest: size of %s: %w", name, err)
	}
	if size > maxBytes {
		return nil, base.Corrupt(name, 0, fmt.Sprintf("at most %d bytes", maxBytes), size)
	}
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("manifest: read %s at %d: %w", name, n, err)
	}
	return b, nil
}

// settle cuts the file and makes what was read durable: a process that was
// killed may have left an edit or a rename unsynced, and what is built on them
// must not outlive them.
func settle(fs vfs.FS, dir string, f vfs.File, end int64) error {
	if err := cut(f, end); err != nil {
		return err
	}
	if err := fs.SyncDir(dir); err != nil {
		return fmt.Errorf("manifest: sync the directory: %w", err)
	}
	return nil
}

// cut ends the file at the given length and syncs it.
func cut(f vfs.File, end int64) error {
	if err := f.Truncate(end); err != nil {
		return fmt.Errorf("manifest: cut the torn tail: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("manifest: sync: %w", err)
	}
	return nil
}

// State is the current state. It is never changed; any goroutine may call State
// at any time.
func (m *Manifest) State() *State { return m.state.Load() }

// Apply makes an edit durable and then current. When writing fails, for want of
// space for instance, the edit did not happen and Apply may be called again. A
// failed sync is final: the next Open may or may not find that edit, so every
// file that either state names must stay, and this Manifest refuses all others.
func (m *Manifest) Apply(e Edit) error {
	if m.err != nil {
		return m.err
	}
	if err := m.draft.check(e); err != nil {
		return err
	}
	payload := appendEdit(nil, nil, e)
	switch {
	case len(payload) == 0:
		return nil
	case len(payload) > maxEditBytes:
		return fmt.Errorf("manifest: edit of %d bytes, %d allowed; split it", len(payload), maxEditBytes)
	}
	frame := appendFrame(nil, m.at, payload)
	if _, err := m.f.WriteAt(frame, m.at.end); err != nil {
		if err := cut(m.f, m.at.end); err != nil {
			m.err = err // some of the edit may be on disk
		}
		return fmt.Errorf("manifest: write: %w", err)
	}
	if base.Defences.ManifestSync {
		if err := m.f.Sync(); err != nil {
			m.err = fmt.Errorf("manifest: sync: %w", err)
			return m.err
		}
	}
	m.at = m.at.behind(payload, frameSum(frame))
	m.draft.apply(e)
	m.state.Store(m.draft.publish())

	seal, off := m.at.seal()
	_, _ = m.f.WriteAt(seal, off) // the edit is good without it
	if m.at.end > m.rewriteAt {
		m.shorten()
	}
	return nil
}

// shorten rewrites a long manifest. Where that fails, the long one goes on
// until it has doubled, unless a sync failed.
func (m *Manifest) shorten() {
	if err := m.rewrite(); err != nil {
		m.rewriteAt = 2 * m.at.end
	}
}

// rewrite writes the current state into a fresh file, which takes the place of
// the old one, if any, atomically.
func (m *Manifest) rewrite() error {
	b, at := appendSnapshot(nil, base.ManifestMagic, m.at.generation+1, m.State())
	tmp, name := path.Join(m.dir, base.ManifestTmpName), path.Join(m.dir, base.ManifestName)
	f, err := m.fs.Create(tmp)
	if err != nil {
		return fmt.Errorf("manifest: rewrite: %w", err)
	}
	if err := m.replace(f, b, tmp, name); err != nil {
		f.Close()
		return err
	}
	if m.f != nil {
		m.f.Close() // its bytes were synced, and are superseded
	}
	m.f, m.at = f, at
	m.rewriteAt = max(MinRewriteBytes, rewriteFactor*at.end)
	return nil
}

// appendSnapshot appends a whole file: header, a frame with the state, its seal.
func appendSnapshot(dst []byte, magic base.Magic, generation uint64, s *State) ([]byte, position) {
	start := len(dst)
	b := base.AppendHeader(dst, magic, base.Header{Version: formatVersion, Number: generation})
	at := position{generation, base.HeaderBytes, binary.LittleEndian.Uint32(b[len(b)-4:])}
	snapshot := s.append(nil)
	b = appendFrame(b, at, snapshot)
	at = at.behind(snapshot, frameSum(b[start+base.HeaderBytes:]))
	seal, _ := at.seal()
	return append(b, seal...), at
}

// replace fills f with b and moves it from tmp to name.
func (m *Manifest) replace(f vfs.File, b []byte, tmp, name string) error {
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("manifest: rewrite: %w", err)
	}
	if err := f.Sync(); err != nil {
		m.err = fmt.Errorf("manifest: sync: %w", err)
		return m.err
	}
	if err := m.fs.Rename(tmp, name); err != nil {
		return fmt.Errorf("manifest: rewrite: %w", err)
	}
	if err := m.fs.SyncDir(m.dir); err != nil {
		m.err = fmt.Errorf("manifest: sync the directory: %w", err)
		return m.err
	}
	return nil
}

// Close closes the file. It may be called twice.
func (m *Manifest) Close() error {
	if m.f == nil {
		return nil
	}
	err := m.f.Close()
	m.f = nil
	if m.err == nil {
		m.err = ErrClosed
	}
	return err
}
