package audit_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"consort.dev/consort/audit"
	"consort.dev/consort/audit/chain"
	"consort.dev/consort/plane/store/mem"
)

// TestWhatWasAcknowledgedSurvivesKill has another process write until it is
// killed, and looks for everything it was told is on disk.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	if dir := os.Getenv("AUDIT_TEST_WRITE"); dir != "" {
		writeForEver(dir)
	}
	runs := 20
	if testing.Short() {
		runs = 3
	}
	dir, total := t.TempDir(), 0
	for run := range runs {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWhatWasAcknowledgedSurvivesKill$")
		cmd.Env = append(os.Environ(), "AUDIT_TEST_WRITE="+dir)
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		acked := map[string]string{}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			n, who, ok := strings.Cut(lines.Text(), " ")
			if !ok {
				continue // the last line, cut short
			}
			if acked[n] = who; len(acked) == 7*run+1 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
		found := map[string]string{}
		err = audit.Read(context.Background(), dir, audit.Query{}, func(r audit.Record) error {
			found[strconv.FormatUint(r.Sequence, 10)] = r.Who
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for n, who := range acked {
			if found[n] != who {
				t.Errorf("run %d: record %s was acknowledged to %s; the log has %q", run, n, who, found[n])
			}
		}
		total += len(acked)
		if r, err := chain.Verify(context.Background(), dir, nil); err != nil || r.Broken != nil {
			t.Fatalf("run %d: %v %v", run, r.Broken, err)
		}
	}
	t.Logf("%d kills, %d acknowledged records, all there", runs, total)
}

func writeForEver(dir string) {
	l, err := audit.Open(context.Background(), options(dir, mem.Open(mem.Options{})))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				who := fmt.Sprintf("%d:%d:%d", os.Getpid(), w, i)
				n, err := l.Record(context.Background(), audit.Act{Who: who, What: "test", Outcome: audit.Done})
				if err == nil {
					out.Lock()
					fmt.Printf("%d %s\n", n, who)
					out.Unlock()
				}
			}
		}()
	}
	select {}
}

func BenchmarkRecord(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers, "writers"), func(b *testing.B) {
			l, err := audit.Open(b.Context(), options(b.TempDir(), mem.Open(mem.Options{})))
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			left := make(chan struct{}, b.N)
			for range b.N {
				left <- struct{}{}
			}
			close(left)
			b.ResetTimer()
			var all sync.WaitGroup
			for range writers {
				all.Go(func() {
					for range left {
						if _, err := l.Record(context.Background(), audit.Act{Who: "ana", What: "connect", On: "desktop/default/office", Outcome: audit.Done}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acknowledged/s")
		})
	}
}
