package consort

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "consort.dev/consort"

// mayImport says which of our folders a folder may import, besides itself. The
// longest matching row decides; a folder without a row fails, so that whoever
// adds one must say where it belongs. A row that ends in / covers every folder
// below it. "*" is everything. Leaves under internal/ are named like any other.
var mayImport = map[string]string{
	".":      "",
	"fault":  "",
	"estate": "",

	// The three layers, each of the same parts.
	"hypervisor":              "estate fault hypervisor/driver",
	"hypervisor/driver":       "estate fault",
	"hypervisor/":             "estate fault hypervisor/driver internal/ guest/",
	"presentation":            "estate fault presentation/driver",
	"presentation/driver":     "estate fault",
	"presentation/":           "estate fault presentation/driver internal/",
	"application":             "estate fault application/driver",
	"application/driver":      "estate fault",
	"application/":            "estate fault application/driver internal/",
	"hypervisor/drivertest":   "estate fault hypervisor/driver",
	"presentation/drivertest": "estate fault presentation/driver",
	"application/drivertest":  "estate fault application/driver",

	// Pure parts.
	"manifest":         "estate fault internal/near manifest/openslo",
	"manifest/openslo": "estate",
	"compose":          "estate fault",
	"matrix":           "estate",
	"decide":           "estate",
	"decide/desk":      "estate decide",
	"packing":          "fault",

	// What lies on a host.
	"image":         "estate fault internal/",
	"guest/":        "fault internal/",
	"agent":         "estate fault api image hypervisor hypervisor/driver application application/driver agent/network guest/files guest/identity internal/",
	"agent/network": "estate fault internal/",
	"agent/badge":   "fault api internal/atomicfile",
	"agent/confine": "fault internal/leash",

	// What stands before services.
	"front":        "fault",
	"front/scrape": "front",

	// What crosses processes.
	"api": "estate fault",

	// Who did what.
	"audit":       "fault plane/store audit/chain",
	"audit/chain": "fault internal/atomicfile",
	"recording":   "fault plane/store audit/chain",

	// The plane. Loops meet in the store and know nothing of each other.
	"plane/store":             "estate fault",
	"plane/store/":            "fault plane/store internal/flock",
	"plane/auth":              "estate fault api audit plane/store plane/authority",
	"plane/authority":         "fault api internal/atomicfile",
	"plane/calls":             "fault api",
	"plane/rpc":               "estate fault api audit audit/chain recording plane/store plane/auth plane/calls plane/metrics internal/near",
	"plane/control":           "estate fault plane/store",
	"plane/spans":             "estate fault plane/store plane/control",
	"plane/slo":               "estate fault",
	"plane/slo/slotest":       "",
	"plane/metrics":           "fault",
	"plane/metrics/":          "fault plane/metrics",
	"plane/metrics/census":    "estate plane/store",
	"plane/metrics/usage":     "estate api plane/store",
	"plane/control/place":     "estate fault matrix packing plane/store plane/control",
	"plane/control/move":      "estate fault api plane/store plane/control plane/calls compose",
	"plane/control/pool":      "estate fault api plane/store plane/control compose",
	"plane/control/service":   "estate fault api front plane/fronts plane/store plane/control compose",
	"plane/control/scale":     "estate fault decide front plane/fronts plane/slo plane/store plane/control",
	"plane/fronts":            "estate fault front",
	"plane/control/level":     "estate fault api decide decide/desk plane/slo plane/store plane/control",
	"plane/control/lifecycle": "estate fault plane/store plane/control compose",
	"gateway":                 "estate fault api audit recording plane/store presentation presentation/driver",

	"internal/":         "",
	"internal/qmp":      "fault",
	"internal/virtrpc":  "fault",
	"internal/diskfile": "fault internal/atomicfile",
	"internal/rfb":      "fault",
	"internal/vdisk":    "internal/vdisk/vdisktest",

	// Examples are what others write: they see what others see.
	"examples/toy-provider": "estate fault hypervisor/driver hypervisor/remote",
	"examples/uml-provider": "estate fault hypervisor/driver hypervisor/remote guest/qga",

	"web":   "",
	"cmd/":  "*",
	"test":  "*",
	"test/": "*",

	// Benchmarks drive the product from outside, as its users do.
	"bench/":         "estate fault api internal/ bench/result bench/picture",
	"bench/picture":  "internal/rfb",
	"bench/scale":    "estate decide bench/result",
	"bench/result":   "",
	"bench/front":    "front bench/result",
	"bench/clone":    "estate fault agent/confine agent/network guest/identity hypervisor/driver hypervisor/qemu image manifest internal/ bench/result bench/picture",
	"bench/slo":      "bench/result plane/slo plane/slo/slotest",
	"bench/contexts": "test/hostile bench/result",
	"bench/place":    "estate packing plane/store plane/store/etcd plane/control plane/control/place bench/result",
}

// home says where a foreign module may be imported: one place each.
var home = map[string]string{
	"go.etcd.io/etcd":                    "plane/store/etcd",
	"github.com/danielgtaylor/huma":      "plane/rpc",
	"github.com/coder/websocket":         "api gateway bench/display",
	"go.yaml.in/yaml":                    "manifest",
	"github.com/spf13/cobra":             "cmd/consort",
	"github.com/go-webauthn":             "plane/auth",
	"github.com/erofs/go-erofs":          "application/stream",
	"golang.org/x/crypto/argon2":         "plane/auth",
	"golang.org/x/crypto/xts":            "internal/luks",
	"github.com/Azure/go-ntlmssp":        "hypervisor/hyperv",
	"go.uber.org/zap":                    "plane/store/etcd",
	"github.com/digitalocean/go-libvirt": "internal/virtrpc",
	"libvirt.org/go/libvirtxml":          "internal/virtrpc hypervisor/libvirt hypervisor/xen",
	"go.opentelemetry.io":                "plane/spans plane/metrics/otlp",
	"github.com/prometheus/client":       "plane/spans front/scrape plane/metrics/scrape plane/metrics/census plane/metrics/usage",
	"github.com/prometheus/common":       "plane/metrics/scrape",
	"github.com/prometheus/otlp":         "plane/metrics/otlp",
	"github.com/prometheus/prometheus":   "plane/metrics/embedded",
	"github.com/vmware/govmomi":          "hypervisor/vsphere hypervisor/vsphere/vcsim",
}

// vocabulary has words that a provider must use because its vendor does, though
// they name another provider of ours.
var vocabulary = map[string]string{
	"hypervisor/qemu":    "stream",   // its name for a network card joined to a socket
	"hypervisor/libvirt": "qemu vnc", // the daemon's names for a type of domain and a kind of screen
	"hypervisor/xen":     "qemu",     // libvirt's name for what serves a disk
}

// vague are names of plumbing, not of ideas.
var vague = strings.Fields("base common helper helpers lib manager misc models shared types util utils")

const (
	mostLines   = 500 // of a file, tests too
	mostMethods = 8   // of an interface
)

func TestFilesAreShort(t *testing.T) {
	everyFile(t, func(file string, src []byte) {
		if n := strings.Count(string(src), "\n"); n > mostLines {
			t.Errorf("%s: %d lines, at most %d", file, n, mostLines)
		}
	})
}

func TestLayout(t *testing.T) {
	docs, used := map[string]int{}, map[string]bool{}
	eachFile(t, func(file string, f *ast.File) {
		dir := path.Dir(file)
		docs[dir] += 0
		if f.Doc != nil {
			docs[dir]++
		}
		if slices.Contains(vague, path.Base(dir)) {
			t.Errorf("%s: name the folder for what it is, not %q", dir, path.Base(dir))
		}
		checkImports(t, file, dir, f)
		markHomes(used, dir, f)
		checkShapes(t, file, f)
	})
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("%s: %d package comments, want 1", dir, n)
		}
	}
	for _, idle := range idleHomes(used) {
		t.Errorf("%s, and nobody there does; take it out of home", idle)
	}
}

// markHomes notes which foreign modules a file of the folder imports.
func markHomes(used map[string]bool, dir string, f *ast.File) {
	for _, im := range f.Imports {
		for mod := range home {
			if strings.HasPrefix(strings.Trim(im.Path.Value, `"`), mod) {
				used[mod+" in "+dir] = true
			}
		}
	}
}

// idleHomes returns the homes of modules that nobody in them imports.
func idleHomes(used map[string]bool) []string {
	var idle []string
	for mod, at := range home {
		for _, dir := range strings.Fields(at) {
			if !used[mod+" in "+dir] {
				idle = append(idle, dir+" may import "+mod)
			}
		}
	}
	return idle
}

func checkImports(t *testing.T, file, dir string, f *ast.File) {
	allowed, ok := rowFor(dir)
	if !ok {
		t.Errorf("%s: no row in mayImport; say what it may import", dir)
	}
	for _, im := range f.Imports {
		p := strings.Trim(im.Path.Value, `"`)
		if ours, is := strings.CutPrefix(p, module+"/"); is {
			if ours != dir && allowed != "*" && !covers(allowed, ours) {
				t.Errorf("%s imports %s; its row allows [%s]", file, ours, allowed)
			}
			continue
		}
		for mod, at := range home {
			if strings.HasPrefix(p, mod) && !covers(at, dir) {
				t.Errorf("%s imports %s; its home is %s", file, p, at)
			}
		}
	}
}

func checkShapes(t *testing.T, file string, f *ast.File) {
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Name.Name == "init" && fn.Recv == nil {
			t.Errorf("%s: has an init function; wire by hand", file)
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		ts, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if it, ok := ts.Type.(*ast.InterfaceType); ok && it.Methods.NumFields() > mostMethods {
			t.Errorf("%s: interface %s has %d methods, at most %d", file, ts.Name, it.Methods.NumFields(), mostMethods)
		}
		return true
	})
}

// TestNoProviderNames fails where code outside a provider's folder, and outside
// cmd, says a provider's name as a whole identifier or string: it should ask
// what the provider can do.
func TestNoProviderNames(t *testing.T) {
	homes := map[string]string{}
	for _, layer := range []string{"hypervisor", "presentation", "application"} {
		dirs, err := os.ReadDir(layer)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range dirs {
			if d.IsDir() && !slices.Contains([]string{"driver", "drivertest", "flaky", "remote", "testdata"}, d.Name()) {
				homes[d.Name()] = layer + "/" + d.Name()
			}
		}
	}
	for _, name := range []string{"qemu", "libvirt", "xen", "vsphere", "hyperv", "vnc", "rdp", "spice", "flatpak"} {
		if homes[name] == "" {
			homes[name] = "a folder of its own"
		}
	}
	eachFile(t, func(file string, f *ast.File) {
		if strings.HasPrefix(file, "cmd/") || strings.HasPrefix(file, "test/") || strings.HasPrefix(file, "bench/") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			word := ""
			switch n := n.(type) {
			case *ast.ImportSpec:
				return false
			case *ast.SelectorExpr:
				// What a foreign module calls its own is no word of ours.
				if x, is := n.X.(*ast.Ident); is && foreign(f, x.Name) {
					return false
				}
			case *ast.Ident:
				word = n.Name
			case *ast.BasicLit:
				word = strings.Trim(n.Value, "\"`")
			}
			word = strings.ToLower(word)
			at, is := homes[word]
			if is && !slices.Contains(strings.Fields(vocabulary[path.Dir(file)]), word) && path.Dir(file) != at && !strings.HasPrefix(file, at+"/") {
				t.Errorf("%s says %q; ask what the provider can do instead", file, word)
			}
			return true
		})
	})
}

// foreign reports whether a file imports, under that name, a module that has a home.
func foreign(f *ast.File, name string) bool {
	for _, im := range f.Imports {
		for mod := range home {
			if strings.HasPrefix(strings.Trim(im.Path.Value, `"`), mod) && im.Name != nil && im.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// eachFile visits every Go file of ours that is not a test.
func eachFile(t *testing.T, visit func(file string, f *ast.File)) {
	t.Helper()
	everyFile(t, func(file string, src []byte) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		visit(file, f)
	})
}

// everyFile visits every Go file of ours.
func everyFile(t *testing.T, visit func(file string, src []byte)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == ".cache" || d.Name() == ".git") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		visit(file, src)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rowFor returns what the folder may import: by its own row, or the longest
// row above it that ends in a slash.
func rowFor(dir string) (allowed string, ok bool) {
	if a, ok := mayImport[dir]; ok {
		return a, true
	}
	best := -1
	for row, a := range mayImport {
		if strings.HasSuffix(row, "/") && strings.HasPrefix(dir, row) && len(row) > best {
			allowed, ok, best = a, true, len(row)
		}
	}
	return allowed, ok
}

// covers reports whether a list of folders names dir, or a folder above it with
// a slash at its end.
func covers(list, dir string) bool {
	for _, s := range strings.Fields(list) {
		if s == dir || strings.HasSuffix(s, "/") && strings.HasPrefix(dir, s) {
			return true
		}
	}
	return false
}

// TestRulesBite shows that the rules above refuse what they must.
func TestRulesBite(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"hypervisor/qemu", "hypervisor/driver", true},
		{"hypervisor/qemu", "hypervisor/libvirt", false},
		{"hypervisor/qemu", "internal/qmp", true},
		{"hypervisor/driver", "hypervisor", false},
		{"presentation/vnc", "hypervisor/driver", false},
		{"plane/control/place", "plane/control/lifecycle", false},
		{"plane/control/place", "plane/rpc", false},
		{"agent", "plane/store", false},
		{"agent", "api", true},
		{"estate", "fault", false},
		{"compose", "plane/store", false},
	} {
		allowed, ok := rowFor(c.from)
		if !ok {
			t.Errorf("%s has no row", c.from)
		}
		if got := covers(allowed, c.to); got != c.want {
			t.Errorf("%s may import %s = %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if _, ok := rowFor("helpers"); ok {
		t.Error("a folder nobody knows has a row")
	}
	if !slices.Contains(idleHomes(map[string]bool{"go.yaml.in/yaml in estate": true}), "manifest may import go.yaml.in/yaml") {
		t.Error("a home that nobody uses passes")
	}
}
