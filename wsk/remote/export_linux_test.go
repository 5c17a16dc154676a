package remote

// Users are how many users the service knows of.
func (s *Service) Users() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.users)
}
