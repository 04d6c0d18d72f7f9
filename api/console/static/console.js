// The console's own script: times in the reader's zone, uploads with progress, labels from data sets. Nothing that is read needs it.
(function () {
  "use strict";
  var moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  var day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

  function localTimes(root) {
    root.querySelectorAll("time[datetime]").forEach(function (time) {
      var at = new Date(time.dateTime);
      if (!isNaN(at)) time.textContent = (time.hasAttribute("data-day") ? day : moment).format(at);
    });
  }

  function localAll() { localTimes(document); }
  document.addEventListener("DOMContentLoaded", localAll);
  document.addEventListener("htmx:afterSettle", localAll);
  document.addEventListener("htmx:beforeSwap", function (event) {
    // A page that went away, or a session that is over, must not take the place of a part of this one.
    if (event.detail.xhr.status >= 400) event.detail.shouldSwap = false;
  });
  document.addEventListener("htmx:responseError", function (event) {
    if (event.detail.xhr.status === 404 || event.detail.xhr.status === 403) location.reload();
  });
})();
