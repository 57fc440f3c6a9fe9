package services

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// crowd asks a service, whether or not it answers: who comes does not know how
// many wait. It is the users' own account of what they got.
type crowd struct {
	url    string
	client *http.Client
	end    chan struct{}
	over   sync.WaitGroup

	mu      sync.Mutex
	was, is float64       // requests/s, before and after the last change
	began   time.Time     // when that began
	within  time.Duration // how long it takes
	answers []answer
}

// answer is what one user got.
type answer struct {
	asked time.Time
	took  time.Duration
	why   string // it was no answer; empty of one
}

// newCrowd asks so many times a second until the test ends, at moments as random
// as users'.
func newCrowd(t *testing.T, url string, rate float64) *crowd {
	c := &crowd{url: url, was: rate, is: rate, end: make(chan struct{}), client: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
	}}
	random := rand.New(rand.NewPCG(1, 2))
	c.over.Go(func() {
		for next := time.Now(); ; {
			next = next.Add(time.Duration(random.ExpFloat64() / c.rate(next) * float64(time.Second)))
			select {
			case <-c.end:
				return
			case <-time.After(time.Until(next)):
			}
			c.over.Go(c.ask)
		}
	})
	t.Cleanup(func() {
		close(c.end)
		c.over.Wait()
		c.client.CloseIdleConnections()
	})
	return c
}

// ask asks once.
func (c *crowd) ask() {
	a := answer{asked: time.Now()}
	res, err := c.client.Get(c.url)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	a.took = time.Since(a.asked)
	switch {
	case err != nil:
		a.why = err.Error()
	case res.StatusCode != http.StatusOK:
		a.why = res.Status
	}
	c.mu.Lock()
	c.answers = append(c.answers, a)
	c.mu.Unlock()
}

// comes changes how many requests a second come, evenly within some time from now.
func (c *crowd) comes(rate float64, within time.Duration) {
	now := time.Now()
	was := c.rate(now)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.was, c.is, c.began, c.within = was, rate, now, within
}

// rate is how many requests a second come at the moment.
func (c *crowd) rate(at time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	past := at.Sub(c.began)
	if past >= c.within {
		return c.is
	}
	return c.was + (c.is-c.was)*max(0, past.Seconds()/c.within.Seconds())
}

// account is what users got.
type account struct {
	all, late, failed int
	middle, worst     time.Duration
	why               string // of a failure
}

// since sums up those who asked at the moment or later and know their answer;
// late is who waited longer than the bound.
func (c *crowd) since(moment time.Time, bound time.Duration) (sum account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var times []time.Duration
	for _, a := range c.answers {
		if a.asked.Before(moment) {
			continue
		}
		sum.all++
		times = append(times, a.took)
		switch {
		case a.why != "":
			sum.failed, sum.why = sum.failed+1, a.why
		case a.took > bound:
			sum.late++
		}
	}
	slices.Sort(times)
	if len(times) > 0 {
		sum.middle, sum.worst = times[len(times)/2], times[len(times)-1]
	}
	return sum
}

// bad is the share of requests that were not answered well.
func (a account) bad() float64 { return float64(a.late+a.failed) / float64(max(a.all, 1)) }

// String is for logs.
func (a account) String() string {
	return fmt.Sprintf("%d requests, %d late, %d failed %s; half within %s, the worst %s", a.all, a.late, a.failed, a.why,
		a.middle.Round(time.Millisecond), a.worst.Round(time.Millisecond))
}
