def write_report(folder):
    (folder/'report.html').write_text('x')
