package decide

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// String is the level as people say it.
func (l Level) String() string {
	return fmt.Sprintf("%s of requests within %s", percent(l.Share), l.Bound)
}

func (v view) why() Why {
	return Why{
		Objective: v.p.Level.String(), Rate: tidy(v.rate), Forecast: tidy(v.forecast), Margin: tidy(v.margin), Safe: tidy(v.safe), Quick: tidy(v.now.pace()),
		BadShort: tidy(v.now.badShare()), BadLong: tidy(v.minute.badShare()), Blind: v.blind, Burning: v.burning, Wanted: v.want,
	}
}

func (v view) sayLoad() string {
	return fmt.Sprintf("%s requests/s arrive and one %s keeps %s up to %s requests/s",
		round(v.rate), v.unit(), v.p.Level.Bound, round(v.safe))
}

func (v view) unit() string {
	if v.p.Scaling == Size {
		return "vCPU"
	}
	return "replica"
}

// sayWant is the sentence for what the forecast asks for.
func (v view) sayWant(unit string) string {
	text := fmt.Sprintf("%s, because %s", count(v.want, unit), v.sayLoad())
	if expected := v.forecast * (1 + v.margin); expected > v.rate*1.01 {
		text += fmt.Sprintf("; up to %s are expected by the time a new one is ready", round(expected))
	}
	return text
}

func (v view) sayPush(to int) string {
	return fmt.Sprintf("%s, because %s of the requests were bad in the last minute and at most %s may be; %d were not enough",
		count(to, "replica"), percent(v.minute.badShare()), percent(v.p.Level.budget()), v.units)
}

func (v view) sayWait() string {
	if v.blind {
		return fmt.Sprintf("still %s, because nothing is known of what %s did in the last %s", count(v.units, v.unit()), v.p.Service, short)
	}
	if v.now.arrived == 0 {
		return fmt.Sprintf("still %s, because no requests arrive and fewer must not be yet", count(v.units, v.unit()))
	}
	return fmt.Sprintf("still %s, because %s", count(v.units, v.unit()), v.sayLoad())
}

func (v view) notWaiting(d Decision) string {
	switch d.Act {
	case Out:
		return fmt.Sprintf("%d would bear %s requests/s", v.units, round(v.safe*float64(v.units)))
	case In:
		return fmt.Sprintf("%d more than anything of late asked for", v.units-d.To)
	case Resize:
		return fmt.Sprintf("%s would bear %s requests/s", count(v.units, "vCPU"), round(v.safe*float64(v.units)))
	}
	return "it does not mend by itself: it was seen for a minute"
}

func count(n int, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.Itoa(n) + " " + unit + "s"
}

// round writes a rate with as many digits as it deserves.
func round(r float64) string {
	if r < 10 {
		return strconv.FormatFloat(math.Round(r*10)/10, 'f', -1, 64)
	}
	return strconv.FormatFloat(math.Round(r), 'f', -1, 64)
}

func percent(share float64) string {
	return strconv.FormatFloat(math.Round(share*10000)/100, 'f', -1, 64) + " %"
}

func millis(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(time.Millisecond).String()
}

// tidy keeps four digits: a record is for reading.
func tidy(x float64) float64 {
	if x == 0 {
		return 0
	}
	f := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(x))))
	return math.Round(x*f) / f
}
