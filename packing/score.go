package packing

// Expected is a demand and how often it is to come, in proportion to others.
type Expected struct {
	Demand Demand
	Weight float64
}

type expectation struct {
	flavour *Flavour
	weight  float64
}

// Expect tells what is to come. What is left on a host counts as fragments as
// far as that cannot use it (Weng et al., "Beware of Fragmentation", ATC 2023).
// Without it only the tightness of a fit counts.
func (c *Cluster) Expect(es []Expected) {
	var sum float64
	for _, e := range es {
		sum += e.Weight
	}
	c.expected = c.expected[:0]
	for _, e := range es {
		if e.Weight > 0 {
			c.expected = append(c.expected, expectation{c.Flavour(e.Demand), e.Weight / sum})
		}
	}
	for _, h := range c.hosts {
		h.stale = true
	}
}

// score says how bad it is to have the flavour on the host: by how much that
// adds to the fragments, in thousandths of a device or of a host without any,
// and how loosely it fits.
func (c *Cluster) score(h *host, f *Flavour) float64 {
	s := c.opts.Tight * c.loose(h, f)
	if len(c.expected) > 0 {
		after, _ := c.tried(h, f)
		s += after - c.fragments(h)
	}
	return s
}

// loose is what would be left, as a part of the largest host there is: the mean
// of the dimensions that are bounded. Small hosts are filled first.
func (c *Cluster) loose(h *host, f *Flavour) float64 {
	sum, n := 0.0, 0
	for d := range dims {
		if h.Has[d] < Unbounded && c.largest[d] > 0 {
			sum += float64(h.free[d]-f.Need[d]) / float64(c.largest[d])
			n++
		}
	}
	if h.Devices > 0 {
		left := -f.Devices*Whole - f.Share
		for _, free := range h.devices[:h.Devices] {
			left += int(free)
		}
		sum += float64(left) / (MaxDevices * Whole)
		n++
	}
	return sum / float64(max(1, n))
}

// fragments returns those of the host as it is.
func (c *Cluster) fragments(h *host) float64 {
	if h.stale {
		h.frag, h.stale = c.fragmentsOf(h, h.free, &h.devices), false
	}
	return h.frag
}

// pick returns which devices the flavour gets on the host.
func (c *Cluster) pick(h *host, f *Flavour) uint8 {
	if f.Share == 0 && f.Devices == 0 || h.Devices == 0 {
		return 0
	}
	if f.Share > 0 && len(c.expected) == 0 {
		return h.tightest(f.Share)
	}
	_, devices := c.tried(h, f)
	return devices
}

// tightest returns the device with the least left that has the share.
func (h *host) tightest(share int) (devices uint8) {
	least := int16(Whole + 1)
	for i, left := range h.devices[:h.Devices] {
		if int(left) >= share && left < least {
			least, devices = left, 1<<i
		}
	}
	return devices
}

// tried returns the fragments of the host with the flavour on it, and on which
// of its devices that leaves the fewest. A host that has no such devices left
// gives none.
func (c *Cluster) tried(h *host, f *Flavour) (frag float64, devices uint8) {
	free := h.free
	for d := range dims {
		free[d] -= f.Need[d]
	}
	left := h.devices
	switch {
	case f.Share > 0:
		seen := [MaxDevices]int16{}
		for i, was := range h.devices[:h.Devices] {
			if int(was) < f.Share || contains(seen[:i], was) {
				continue // a device as full as one that was tried is the same
			}
			seen[i] = was
			left[i] -= int16(f.Share)
			if s := c.fragmentsOf(h, free, &left); devices == 0 || s < frag {
				frag, devices = s, 1<<i
			}
			left[i] = was
		}
		return frag, devices
	case f.Devices > 0:
		n := f.Devices
		for i := 0; i < h.Devices && n > 0; i++ {
			if left[i] == Whole {
				left[i], devices = 0, devices|1<<i
				n--
			}
		}
	}
	return c.fragmentsOf(h, free, &left), devices
}

func contains(s []int16, v int16) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}

// fragmentsOf returns how much of what is left what is expected cannot use: all
// of it where a demand does not fit, and else the devices that have too little
// left for it. It is counted in thousandths of a device; of a host without
// devices in thousandths of the host.
func (c *Cluster) fragmentsOf(h *host, free Amounts, devices *[MaxDevices]int16) float64 {
	if len(c.expected) == 0 {
		return 0
	}
	var total, whole int
	for _, left := range devices[:h.Devices] {
		total += int(left)
		if left == Whole {
			whole++
		}
	}
	if h.Devices == 0 {
		total = h.share(free)
	}
	if total <= 0 {
		return 0
	}
	lost := 0.0
	for i := range c.expected {
		e := &c.expected[i]
		f := e.flavour
		if !f.Need.within(&free) || f.Devices > whole || !f.may.has(h.slot) {
			lost += e.weight * float64(total)
			continue
		}
		if h.Devices == 0 {
			if f.Share > 0 {
				lost += e.weight * float64(total)
			}
			continue
		}
		lost += e.weight * float64(f.unusable(devices[:h.Devices], total))
	}
	return lost
}

// unusable returns how much of the devices the flavour cannot have, where all
// else of it fits.
func (f *Flavour) unusable(devices []int16, total int) int {
	least := int16(f.Share)
	switch {
	case f.Devices > 0:
		least = Whole
	case f.Share == 0:
		return total // it uses no device at all
	}
	sum := 0
	for _, left := range devices {
		if left < least {
			sum += int(left)
		}
	}
	return sum
}

// share returns how many thousandths of the host are free, on average.
func (h *host) share(free Amounts) int {
	sum, n := int64(0), int64(0)
	for d := range dims {
		if h.Has[d] > 0 && h.Has[d] < Unbounded {
			sum += 1000 * free[d] / h.Has[d]
			n++
		}
	}
	return int(sum / max(1, n))
}
