package hyperv

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

var storedRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*(\\[a-z0-9][a-z0-9-]*)*(\.[a-z0-9]+)*$`)

func stored(name string) string {
	if !storedRule.MatchString(name) {
		stopWith("invalid", "%s is not the name of a stored file", name)
	}
	return modelStore + `\` + name
}

// real is where a file of the host lies.
func (m *model) real(path string) string {
	return filepath.Join(m.dir, strings.ReplaceAll(strings.ReplaceAll(path, ":", ""), `\`, "/"))
}

func (m *model) exists(path string) bool {
	_, err := os.Stat(m.real(path))
	return err == nil
}

func (m *model) write(path, text string) {
	m.must(os.MkdirAll(filepath.Dir(m.real(path)), 0o755))
	m.must(os.WriteFile(m.real(path), []byte(text), 0o644))
}

func (m *model) read(path string) string {
	b, err := os.ReadFile(m.real(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.must(err)
	}
	return string(b)
}

// remove removes a file with what it holds.
func (m *model) removeFile(path string) {
	os.Remove(m.raw(path))
	if err := os.Remove(m.real(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.must(err)
	}
}

func (m *model) raw(path string) string { return m.real(path) + "#raw" }

func (m *model) tool(args ...string) {
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		vendor("OperationFailed", "qemu-img %v: %v %s", args, err, out)
	}
}

// content returns where what a virtual disk holds is kept raw.
func (m *model) content(path string) string {
	if !m.exists(path) {
		vendor("ObjectNotFound", "no disk %s", path)
	}
	if _, err := os.Stat(m.raw(path)); err != nil {
		m.tool("convert", "-q", "-f", "vhdx", "-O", "raw", m.real(path), m.raw(path))
	}
	return m.raw(path)
}

func (m *model) copyRaw(from, to string, size int64) {
	b, err := os.ReadFile(from)
	m.must(err)
	m.must(os.WriteFile(to, b, 0o644))
	if size > 0 {
		m.must(os.Truncate(to, size))
	}
}

func (r *run) has(q hasRequest) had { return had{r.exists(stored(q.File))} }

type note struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Offset int64  `json:"offset"`
}

func (r *run) note(path string) (n note, ok bool) {
	text := r.read(path + ".note")
	return n, text != "" && json.Unmarshal([]byte(text), &n) == nil
}

func (r *run) saveNote(path string, n note) {
	b, err := json.Marshal(n)
	r.must(err)
	r.write(path+".note", string(b))
}

func (r *run) putBegin(q putBeginRequest) putBegun {
	path := stored(q.File)
	if n, ok := r.note(path); ok && r.exists(path+".part") && n.SHA256 == q.SHA256 && n.Size == q.Size {
		return putBegun{n.Offset}
	}
	r.write(path+".part", "")
	r.must(os.Truncate(r.real(path+".part"), q.Size))
	r.step()
	r.saveNote(path, note{q.SHA256, q.Size, 0})
	return putBegun{}
}

func (r *run) putBlock(q putBlockRequest) nothing {
	path := stored(q.File)
	if s := sha256.Sum256(r.payload); hex.EncodeToString(s[:]) != q.SHA256 {
		stopWith("unavailable", "the block arrived damaged; send it again")
	}
	f, err := os.OpenFile(r.real(path+".part"), os.O_WRONLY, 0)
	r.must(err)
	defer f.Close()
	_, err = f.WriteAt(r.payload, q.Offset)
	r.must(err)
	r.step()
	n, _ := r.note(path)
	n.Offset = q.Offset + int64(len(r.payload))
	r.saveNote(path, n)
	return nothing{}
}

func (r *run) putEnd(q putEndRequest) nothing {
	path := stored(q.File)
	if !r.exists(path + ".part") {
		if r.exists(path) {
			return nothing{}
		}
		stopWith("conflict", "nothing was uploaded for %s", q.File)
	}
	if s := sha256.Sum256([]byte(r.read(path + ".part"))); hex.EncodeToString(s[:]) != q.SHA256 {
		r.removeFile(path + ".part")
		r.removeFile(path + ".note")
		stopWith("unavailable", "%s arrived damaged; send it again", q.File)
	}
	r.step()
	os.Remove(r.raw(path))
	r.must(os.Rename(r.real(path+".part"), r.real(path)))
	r.step()
	r.removeFile(path + ".note")
	return nothing{}
}

func (r *run) getBegin(q getBeginRequest) getBegun {
	r.turn(q.ID)
	vm := r.resting(q.ID)
	drive := ""
	if q.Adopted {
		drive = vm.drives[slices.Sorted(maps.Keys(vm.drives))[q.Slot]]
	} else {
		drive = vm.drives[q.Slot]
	}
	if drive == "" {
		stopWith("stuck", "disk %d of machine %s is not attached; attach it again", q.Slot, q.ID)
	}
	to := stored(q.File)
	r.removeFile(to)
	r.step()
	r.tool("convert", "-q", "-f", "raw", "-O", "vhdx", r.content(drive), r.real(to))
	data := r.read(to)
	s := sha256.Sum256([]byte(data))
	return getBegun{int64(len(data)), hex.EncodeToString(s[:])}
}

func (r *run) getBlock(q getBlockRequest) nothing {
	f, err := os.Open(r.real(stored(q.File)))
	r.must(err)
	defer f.Close()
	r.reply = make([]byte, q.Length)
	if _, err := f.ReadAt(r.reply, q.Offset); err != nil {
		r.reply = nil
		stopWith("unavailable", "%s has become shorter", q.File)
	}
	return nothing{}
}

func (r *run) drop(q dropRequest) nothing {
	for _, end := range []string{"", ".part", ".note"} {
		r.removeFile(stored(q.File) + end)
	}
	return nothing{}
}

func (r *run) swap(q swapRequest) nothing {
	r.turn(q.ID)
	vm := r.resting(q.ID)
	vm.clearSaved()
	path, old := stored(q.Disks[q.Slot].File), vm.drives[q.Slot]
	if old != path {
		delete(vm.drives, q.Slot)
		r.step()
		r.join(vm, q.Disks)
	}
	r.step()
	r.write(folder(q.ID)+`\machine.json`, q.Record)
	r.step()
	if old != path && old != "" {
		r.removeFile(old)
	}
	return nothing{}
}

// readDisk reads a file of this machine, or a disk of the model's.
func (m *model) readDisk(path string) ([]byte, error) {
	if strings.HasPrefix(path, "/") {
		return os.ReadFile(path)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return os.ReadFile(m.raw(path))
}
