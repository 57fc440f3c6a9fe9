package services

import (
	"net/http"
	"testing"
	"time"
)

// TestTheExampleServes boots the example's two replicas and asks a hundred times.
func TestTheExampleServes(t *testing.T) {
	s := newStage(t, "docs", "../../examples/service/image.yaml", "../../examples/service/service.yaml")
	client := http.Client{Timeout: time.Minute}
	for range 100 {
		res, err := client.Get(s.url)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Fatalf("the front answers %s", res.Status)
		}
	}
	s.tell("100 requests were answered")
	if n := len(s.service().Status.Replicas); n != 2 {
		t.Errorf("%d replicas, want the 2 of the example", n)
	}
}
